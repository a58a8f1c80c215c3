# SPDX-License-Identifier: Apache-2.0
"""What people are told goes to standard error or to a file, never to standard output."""

import contextlib
import json
import logging
import sys
from pathlib import Path

import pytest

from ecapture.cli import console
from ecapture.errors import ECaptureError, PermissionMissing


@pytest.fixture(autouse=True)
def undo_logging():
    root = logging.getLogger("ecapture")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


def test_a_line_on_standard_error(capsys):
    console.say("told")
    assert capsys.readouterr() == ("", "told\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\a", r"\x1b]0;owned\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u202eb\udcff", r"a\u202eb\udcff"),
        ("a\u061c\u200f\u2028b", r"a\u061c\u200f\u2028b"),
        ("two\n  lines\tof caf\xe9", "two\n  lines\tof caf\xe9"),
    ],
)
def test_names_cannot_drive_the_terminal(capsys, text, shown):
    console.say(text)
    assert capsys.readouterr().err == shown + "\n"
    console.set_up_logging(debug=False, path=None)
    logging.getLogger("ecapture.x").warning("%s: odd", text)
    assert capsys.readouterr().err == f"ecapture: {shown}: odd\n"


def test_no_file_s_name_is_a_line_that_scripts_wait_for(capsys):
    console.set_up_logging(debug=False, path=None)
    logging.getLogger("ecapture.x").warning("%s is not shown: odd", "/tmp/a\nready: 0\n\nsummary:")
    assert capsys.readouterr().err == (
        "ecapture: /tmp/a\n  ready: 0\n\n  summary: is not shown: odd\n"
    )


def test_a_document_is_json_that_does_not_drive_a_terminal():
    names = [{"comm": "a\x9b\u202eb", "files": ["/caf\xe9", "/caf\udce9"]}]
    shown = console.document(names)
    assert rb"a\u009b\u202eb" in shown
    assert json.loads(shown) == [{"comm": "a\x9b\u202eb", "files": ["/caf\xe9", r"/caf\xe9"]}]


def test_a_closed_standard_error_is_no_reason_to_stop(monkeypatch):
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        console.say("told to nobody")  # nothing can be written
    console.say("told to nobody")  # the stream is closed


def test_the_command_to_run_is_exact(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        sys, "argv", [str(tmp_path / "my bin" / "ecapture"), "tls", "--comm", "a b"]
    )
    console.complain(PermissionMissing(capability="root", needed_for="ecapture"))
    assert f"run: sudo '{tmp_path}/my bin/ecapture' tls --comm 'a b'" in capsys.readouterr().err


def test_the_command_to_run_is_exact_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/x/ecapture/__main__.py", "tls"])
    monkeypatch.setattr(sys, "executable", "/my venv/python3")
    console.complain(PermissionMissing(capability="root", needed_for="ecapture"))
    assert "run: sudo '/my venv/python3' -m ecapture tls\n" in capsys.readouterr().err


def test_several_errors_are_a_list(capsys):
    error = ECaptureError(message="two failed")
    error.exceptions = (ECaptureError(message="one"), ECaptureError(message="other"))
    console.complain(error)
    assert capsys.readouterr().err == "ecapture: two failed\n  - one\n  - other\n"


@pytest.mark.parametrize("debug", [True, False])
def test_levels(capsys, debug):
    console.set_up_logging(debug=debug, path=None)
    log = logging.getLogger("ecapture.x")
    log.debug("step")
    log.info("fact")
    out, err = capsys.readouterr()
    assert out == ""
    assert "fact" in err
    assert ("step" in err) == debug


def test_diagnostics_are_appended_to_a_file(tmp_path, capsys):
    path = tmp_path / "log"
    for word in ("first", "second"):
        console.set_up_logging(debug=False, path=str(path))
        logging.getLogger("ecapture.x").warning(word)
    assert path.read_text() == "ecapture: first\necapture: second\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr() == ("", "")
