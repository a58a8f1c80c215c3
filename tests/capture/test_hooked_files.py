# SPDX-License-Identifier: Apache-2.0
"""Files that are hooked: written anew, below several overlays, and out of everybody's reach."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CAPTURES, DEADLINE, wait_until
from mounts import mounted, overlaid
from peers import assert_exact, installed_libssl

pytestmark = [CAPTURES, pytest.mark.needs("mapping_watch")]

# Its functions stand elsewhere the more others come before, and all these are carried out.
FUNCTION = "__attribute__((noinline)) long f{0}(long x) {{ return (x ^ {0}) * 1103515245 + sum; }}"
NAMES = ("SSL_new", "SSL_free", "SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex")


def program(path, before):
    """Builds one that names functions of OpenSSL's, waits for its input to end, and answers."""
    functions = [FUNCTION.format(number) for number in range(300)]
    named = [f"long {name}(void *a, void *b, long c) {{ return sum += c; }}" for name in NAMES]
    calls = [f"sum += f{number}(sum);" for number in range(300)]
    source = "\n".join(
        [
            "#include <stdio.h>",
            "volatile long sum = 1;",
            *functions[:before],
            *named,
            *functions[before:],
            'int main(void) { while (getchar() != EOF); puts("begun"); fflush(stdout);',
            *calls,
            'printf("%lx\\n", sum); return 0; }',
        ]
    )
    build = ["cc", "-O1", "-rdynamic", "-x", "c", "-", "-o", str(path)]
    subprocess.run(build, input=source, text=True, check=True)
    return path


def answer(path):
    return subprocess.run([path], input=b"", capture_output=True, check=True, timeout=DEADLINE)


@contextmanager
def waiting(path):
    """The program running, until its input ends."""
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.stdin.close()
        assert process.wait(DEADLINE) == 0


def test_a_program_that_is_written_anew_is_not_hurt(capture, tmp_path):
    """A breakpoint of the old one's would stand within an instruction of the new one's."""
    old, new = program(tmp_path / "old", 50), program(tmp_path / "new", 55)
    expected = answer(new).stdout
    place = Path(shutil.copy(old, tmp_path / "program"))
    inode = place.stat().st_ino
    with capture("-d") as run:
        with waiting(place):
            run.wait_attached(place)
        shutil.copy(new, place)
        assert place.stat().st_ino == inode
        assert answer(place).stdout == expected
        with waiting(place):
            run.wait_attached(place, times=2)
        assert answer(place).stdout == expected
        shutil.copy(old, place)
        assert answer(place).stdout == expected
        run.finish()


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "plain"])
def test_a_library_that_was_only_opened_for_writing_is_seen_on(capture, peer, tmp_path, keys):
    shutil.copy(installed_libssl(), tmp_path / "libssl.so.3")
    library = tmp_path / "libssl.so.3"
    with peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(tmp_path)}) as talking:
        talking.wait_for("ready")
        more = ("--keylogfile", tmp_path / "keys") if keys else ()
        with capture("-d", *more) as run:
            with library.open("r+b"):
                run.errors.wait_for(lambda line: f"{library} is written" in line, "word of it")
            # Said when all of it is hooked again.
            missed = f"{library} was opened for writing: what process {talking.pid} and"
            run.errors.wait_for(lambda line: missed in line, "what was missed")
            talking.run()
            run.finish()
    assert_exact(run.shown(), talking)
    if keys:
        assert "CLIENT_TRAFFIC_SECRET_0 " in (tmp_path / "keys").read_text()


def links(run):
    """How many links of probes the capture has."""
    found = 0
    for entry in Path(f"/proc/{run.process.pid}/fd").iterdir():
        try:
            found += any(
                kind in str(entry.readlink()) for kind in ("bpf_link", "bpf-link", "perf_event")
            )
        except FileNotFoundError:
            continue
    return found


def test_a_file_system_can_be_unmounted_and_come_back(capture, peer, tmp_path):
    with capture("-d") as run:
        before = links(run)
        for times in (1, 2):
            with mounted(tmp_path / "mounted") as place:
                library = Path(shutil.copy(installed_libssl(), place / "libssl.so.3"))
                talking = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(place)})
                run.wait_attached(library, times)
                talking.run()
                assert links(run) > before
                subprocess.run(["umount", place], check=True)
                wait_until(lambda: links(run) == before, "the end of its links")
            assert run.stderr_so_far().count(f"let go of {library}") == times
        run.finish()
    assert_exact(run.shown(pid=talking.pid), talking)


@pytest.mark.needs("program:unshare")
def test_the_files_of_a_container_that_ended_are_let_go(capture, peer, tmp_path):
    (tmp_path / "root").mkdir()
    script = (
        f"mount -t tmpfs none {tmp_path}/root && cp {installed_libssl()} {tmp_path}/root"
        f' && LD_LIBRARY_PATH={tmp_path}/root exec "$0" "$@"'
    )
    library = tmp_path / "root" / "libssl.so.3"
    with capture("-d") as run:
        before = links(run)
        talking = peer("pair", "--wait-go", prefix=("unshare", "-m", "sh", "-c", script))
        run.wait_attached(library)
        assert links(run) > before
        talking.run()
        wait_until(lambda: links(run) == before, "the end of its links")
        run.finish()
    assert_exact(run.shown(), talking)


def filled(folder):
    shutil.copy(installed_libssl(), folder / "libssl.so.3")
    return folder


def test_one_file_below_several_overlays_is_hooked_once(capture, peer, tmp_path):
    def start(whole):
        return peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(whole)})

    with (
        # What is below an overlay that is below another one has no name that is known to anybody.
        mounted(tmp_path / "below") as below,
        overlaid(filled(below), tmp_path / "one") as one,
        overlaid(below, tmp_path / "two") as two,
        capture("-d") as run,
    ):
        talking = [start(one)]
        run.wait_attached(one / "libssl.so.3")
        hooked = links(run)
        talking += [start(two)]
        run.wait_attached(two / "libssl.so.3")
        assert links(run) == hooked
        again = f"{two}/libssl.so.3 is hooked already, as {one}/libssl.so.3"
        assert again in run.stderr_so_far()
        for each in talking:
            each.run()
        # What it is hooked through goes away; the others go on to be seen.
        subprocess.run(["umount", one], check=True)
        run.errors.wait_for(lambda line: f"let go of {one}/libssl.so.3" in line, "its end")
        wait_until(lambda: links(run) == hooked, "the end of doubled links")
        talking += [start(two)]
        talking[-1].run()
        run.finish()
    for each in talking:
        assert_exact(run.shown(pid=each.pid), each)
