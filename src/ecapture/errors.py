# SPDX-License-Identifier: Apache-2.0
"""Every error of the package, on one screen.

An error carries fields; its text is built from them, and ``hint`` says what to do next. The exit
code of the command line belongs to the class. Errors of other libraries are translated into these
where they first appear.
"""

from __future__ import annotations

from typing import ClassVar


class ECaptureError(Exception):
    """What every error here is. Keyword arguments become attributes."""

    exit_code: ClassVar[int] = 1
    template: ClassVar[str] = "{message}"

    def __init__(self, *, hint: str = "", **fields: object) -> None:
        super().__init__(*fields.values())
        self.hint = hint
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.template.format(**self.fields)


class UsageError(ECaptureError):
    """An option has a value that cannot be. Raised before anything is attached."""

    exit_code = 2
    template = "{option}: {problem}"


class HostError(ECaptureError):
    """The machine cannot do what was asked."""

    exit_code = 3


class PermissionMissing(HostError):
    """A right is missing."""

    template = "{needed_for} needs {capability}"


class FeatureMissing(HostError):
    """The kernel lacks a feature."""

    template = "this kernel has no {feature} (it comes with {since}), which {needed_for} needs"


class TypesMissing(HostError):
    """The kernel shows no type information (BTF)."""

    template = "no kernel type information (BTF) at {looked_for}"


class TargetError(ECaptureError):
    """The program or file to observe is not as expected."""

    exit_code = 4


class TargetNotFound(TargetError):
    """There is no such process, file or library."""

    template = "{looked_for}: not found in {looked_in}"


class NotExecutable(TargetError):
    """The file is not an ELF file that this machine can run."""

    template = "{path}: {reason}"


class SymbolNotFound(TargetError):
    """The file lacks the functions to observe."""

    template = "{path}: has no function {symbol}"


class KernelError(ECaptureError):
    """The kernel refused an operation it should know."""

    exit_code = 5
    template = "{operation} of {subject}: {reason}"


class VerifierRejected(KernelError):
    """The kernel's verifier refused a program. ``log`` has its whole text."""

    template = "the kernel's verifier refused the program {program}: {last_lines}"


class AttachRefused(KernelError):
    """A probe could not be placed."""

    template = "{hook}: cannot be attached ({reason})"


class SinkError(ECaptureError):
    """Output cannot be written."""

    exit_code = 6
    template = "{destination}: {cause}"


class StreamError(ECaptureError):
    """The captured stream is malformed somewhere. Costs a record or a flow, never the capture."""


class RecordError(StreamError):
    """A record is not as the wire says."""

    template = "record of kind {kind}: {reason}"


class ProtocolError(StreamError):
    """Bytes are not as their protocol says. The one error that a parser raises."""

    template = "{protocol} at byte {offset}: {reason}"
