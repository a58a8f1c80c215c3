# SPDX-License-Identifier: Apache-2.0
"""Errors carry fields, tell them in one line, and have the exit codes that scripts rely on."""

import ast
import inspect
import string
from pathlib import Path

import pytest

import ecapture
from ecapture import errors
from ecapture.errors import ECaptureError, UsageError

CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, ECaptureError)
}


def fields_of(error_class):
    return {
        name for _text, name, _spec, _how in string.Formatter().parse(error_class.template) if name
    }


@pytest.mark.parametrize("error_class", CLASSES.values(), ids=CLASSES)
def test_the_text_is_made_of_the_fields(error_class):
    fields = {name: f"<{name}>" for name in fields_of(error_class)}
    error = error_class(hint="do this", **fields)
    assert all(value in str(error) for value in fields.values())
    assert error.hint == "do this"
    for name, value in fields.items():
        assert getattr(error, name) == value


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ECaptureError", 1),
        ("UsageError", 2),
        ("HostError", 3),
        ("PermissionMissing", 3),
        ("FeatureMissing", 3),
        ("TypesMissing", 3),
        ("TargetError", 4),
        ("TargetNotFound", 4),
        ("NotExecutable", 4),
        ("SymbolNotFound", 4),
        ("KernelError", 5),
        ("VerifierRejected", 5),
        ("AttachRefused", 5),
        ("SinkError", 6),
        ("StreamError", 1),
        ("RecordError", 1),
        ("ProtocolError", 1),
    ],
)
def test_exit_codes_stay(name, code):
    assert CLASSES[name].exit_code == code


def test_every_class_is_tested():
    assert len(CLASSES) == 17, "add the new class to the table of exit codes above"


def test_braces_in_fields_are_harmless():
    assert str(UsageError(option="{option}", problem="{0}{x!r}")) == "{option}: {0}{x!r}"


def test_every_raise_in_the_package_gives_all_fields():
    """A field that was forgotten would show only when the error is shown."""
    forgotten = []
    seen = 0
    for path in Path(ecapture.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            known = CLASSES.get(node.func.id)
            given = {keyword.arg for keyword in node.keywords}
            if known is None or None in given:
                continue
            seen += 1
            if not fields_of(known) <= given or node.args:
                forgotten.append(f"{path.name}:{node.lineno}")
    assert seen > 30
    assert not forgotten
