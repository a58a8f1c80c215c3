# SPDX-License-Identifier: Apache-2.0
"""Go's crypto/tls, Go 1.15 and later: plaintext of programs that are written in Go.

``(*Conn).Read`` and ``Write`` are all that moves plaintext; what reads through ``bufio`` or speaks
HTTP ends there. Returns are probed at the return instructions that ``binary.golang`` found, never
by the return address, which Go's runtime reads whenever a stack grows. A handshake begins a new
conversation: memory of a connection that was dropped without ``Close`` is used for another.
"""

from __future__ import annotations

from ecapture._wire import Direction, Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

# net.(*TCPConn).Read in the method table of a connection's net.Conn proves what it holds.
_SOCKET = "net.(*TCPConn).Read"


def _hooks(convention: str, read: Shape, write: Shape, end: Shape) -> tuple[Hook, ...]:
    def hook(method: str, shape: Shape, direction: Direction = Direction.READ) -> Hook:
        symbol = f"crypto/tls.(*Conn).{method}"
        return Hook(symbol, shape, direction, convention=convention, beside=_SOCKET)

    return (
        # func (c *Conn) Read(b []byte) (int, error), func (c *Conn) Write(b []byte) (int, error)
        hook("Read", read),
        hook("Write", write, Direction.WRITE),
        # func (c *Conn) Close() error
        hook("Close", end),
        # func (c *Conn) clientHandshake(ctx context.Context) error; before Go 1.17 without context
        hook("clientHandshake", end),
        hook("serverHandshake", end),
    )


PROBE = ProbeSpec(
    name="gotls",
    aliases=("tlsgo",),
    summary="plaintext of programs that are written in Go",
    kinds=("go",),
    explicit_option="--elfpath",
    required=("crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).Write"),
    hooks=(
        *_hooks("register", Shape.GO_READ, Shape.GO_WRITE, Shape.GO_END),
        *_hooks("stack", Shape.GO_STACK_READ, Shape.GO_STACK_WRITE, Shape.GO_STACK_END),
    ),
)
