# SPDX-License-Identifier: Apache-2.0
"""What the extension ``_native`` offers: types and documentation of the thin layer over libbpf.

The layer owns pointers and descriptors, turns failures into ``NativeError``, and copies records out
of the kernel's ring in batches. It decides nothing: which program is loaded, what is attached and
what an error means to a person is said in ``kernel.attach`` and ``kernel.feature``.

Every class owns one thing, may be closed more than once, and refuses use after that with
ValueError. What is forgotten is closed when it is collected.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from typing_extensions import disjoint_base

class NativeError(OSError):
    """The kernel or libbpf refused ``operation`` on ``subject``; ``errno`` says why."""

    operation: str
    subject: str
    def __init__(self, operation: str, subject: str, code: int) -> None: ...

def take_messages() -> list[tuple[int, str]]:
    """What libbpf said since the last call: (level, text), oldest first; 0 is a warning.

    At most 4000 are kept. Nothing is ever printed.
    """

def load_program(program_type: int, instructions: bytes, attach_type: int = 0) -> int:
    """A descriptor of a program made of raw instructions (eight bytes each). The caller closes it.

    For asking the kernel what it knows. Raises NativeError.
    """

def create_map(map_type: int, key_size: int, value_size: int, entries: int) -> int:
    """A descriptor of a new map; sizes in bytes. The caller closes it. Raises NativeError."""

def link_uprobe_multi(
    program_fd: int,
    path: str,
    offsets: Iterable[int],
    cookies: Iterable[int] | None = None,
    pid: int = 0,
    at_return: bool = False,
) -> Link:
    """Attaches a program to many places of one file at once (BPF_TRACE_UPROBE_MULTI, Linux 6.6).

    ``offsets`` are bytes from the file's beginning; ``cookies``, if given, are as many. ``pid`` 0
    means every process. Raises ValueError if the counts differ, else NativeError.
    """

@disjoint_base
class Map:
    """A map of a loaded object. Keys and values are bytes of exactly its sizes, else ValueError."""

    @property
    def fd(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def key_size(self) -> int: ...
    @property
    def value_size(self) -> int: ...
    @property
    def max_entries(self) -> int: ...
    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None if the key is not there. Raises NativeError."""

    def update(self, key: bytes, value: bytes) -> None:
        """Sets the value of a key. Raises NativeError."""

    def delete(self, key: bytes) -> None:
        """Removes a key; one that is not there is no error. Raises NativeError."""

    def keys(self) -> list[bytes]:
        """The keys as they stand; one that changes meanwhile may be missing or be there twice."""

@disjoint_base
class Link:
    """An attached program. Closing it takes the probe out; so does the end of this process."""

    def close(self) -> None:
        """Detaches. The kernel waits for running probes, so this may take milliseconds."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@disjoint_base
class Object:
    """A compiled BPF object: opened, adjusted, loaded once, then attached.

    ``btf_path`` names kernel types to use instead of the kernel's own. Raises NativeError if the
    file is no such object. An unknown program or map is a KeyError.
    """

    def __new__(cls, path: str, btf_path: str | None = None) -> Self: ...
    @property
    def path(self) -> str: ...
    def programs(self) -> list[str]:
        """Names of all programs, in the object's order."""

    def maps(self) -> list[str]:
        """Names of all maps, in the object's order."""

    def set_autoload(self, program: str, wanted: bool) -> None:
        """Whether ``load`` loads this program. Before ``load`` only."""

    def set_attach_type(self, program: str, attach_type: int) -> None:
        """Sets what the program is meant to be attached to (enum bpf_attach_type)."""

    def set_map_size(self, name: str, entries: int) -> None:
        """Sets how many entries (of a ring buffer: bytes) a map has. Before ``load`` only."""

    def reuse_map(self, name: str, other: Map) -> None:
        """Makes a map of another object stand for this one. Before ``load`` only."""

    def load(self) -> None:
        """Loads everything into the kernel. Raises NativeError; the verifier's log is a message."""

    def map(self, name: str) -> Map:
        """A map by name, once loaded. It keeps the object alive."""

    def attach(self, program: str) -> Link:
        """Attaches a program where its section says. Raises NativeError."""

    def attach_uprobe(
        self,
        program: str,
        path: str,
        offset: int,
        pid: int = -1,
        at_return: bool = False,
        cookie: int = 0,
    ) -> Link:
        """Attaches to one place of a file by a perf event; ``pid`` -1 means every process."""

    def program_fd(self, program: str) -> int:
        """The descriptor of a loaded program; it stays this object's."""

    def attach_uprobe_multi(
        self,
        program: str,
        path: str,
        offsets: Iterable[int],
        cookies: Iterable[int] | None = None,
        pid: int = 0,
        at_return: bool = False,
    ) -> Link:
        """As ``link_uprobe_multi``, for a loaded program of this object."""

    def close(self) -> None:
        """Unloads. Links that are still open keep their programs and maps in the kernel."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@disjoint_base
class Ring:
    """The consumer side of a ring buffer map; there may be one only. Raises NativeError.

    A record says its own length, in bytes, in four bytes at ``length_at``; in what is drained each
    begins at a multiple of ``align`` (a power of two). The defaults are those of ``ec_header``.
    """

    def __new__(cls, ring: Map, length_at: int = 8, align: int = 8) -> Self: ...
    @property
    def fd(self) -> int:
        """To poll for what a record wakes up."""

    @property
    def size(self) -> int:
        """Bytes of the ring."""

    def pending(self) -> int:
        """Bytes that are in the ring, those still being written included."""

    @property
    def more(self) -> bool:
        """Whether the last ``drain`` left a record in the ring because of its limits."""

    def drain(self, limit: int, records: int = ...) -> bytes:
        """Takes whole records out, one behind the other, padded.

        At most ``limit`` bytes of at most so many records.

        A record is as long as it says itself, not as long as its reservation. It stops at one that
        is still being written. Runs without the interpreter lock.
        """

    def close(self) -> None:
        """Unmaps the ring."""

@disjoint_base
class MapWatch:
    """Tells of executable mappings of all processes, as they are made (PERF_RECORD_MMAP2).

    ``cpus`` are the processors to watch, all of them for everything; ``pages`` (a power of two) the
    size of each one's buffer. Raises NativeError.
    """

    def __new__(cls, cpus: Iterable[int], pages: int = 64) -> Self: ...
    @property
    def fds(self) -> list[int]:
        """To poll, one for each processor."""

    @property
    def with_build_ids(self) -> bool:
        """Whether the kernel tells build ids (Linux 5.12)."""

    @property
    def lost(self) -> int:
        """Notices for which there was no room."""

    def read(self) -> list[tuple[int, int, int, str, str, int]]:
        """What was mapped since the last call.

        That is (pid, address, bytes, path, build id or "", when in ns of CLOCK_MONOTONIC).
        """

    def close(self) -> None:
        """Ends the watch."""
