# SPDX-License-Identifier: Apache-2.0
"""HTTP/3 over OpenSSL's own QUIC (3.2; its server 3.5), through some libssl by its functions.

``openssl_http3.py LIBRARY get [GROUPS]`` says "ready" and answers each line ``get PORT PATH`` with
the body that the server sent; every request is a connection of its own. ``openssl_http3.py LIBRARY
serve CERTIFICATE KEY [trusting]`` says its port and answers every request with its path, over as
many connections, one after the other, as there come; unless it is trusting, it has clients prove
their address first (Retry: RFC 9000, section 8.1.2). Only what this needs of HTTP/3 is spoken.
"""

from __future__ import annotations

import ctypes
import socket
import sys

import pylsqpack
from aioquic.buffer import Buffer, encode_uint_var

DATA, HEADERS, SETTINGS = 0, 1, 4
CONTROL_STREAM = b"\0"
LONGEST_SECTION = b"\6" + encode_uint_var(16384)  # a setting: Wireshark tells of no empty frame
ALPN = b"\x02h3"
# include/openssl/ssl.h
UNIDIRECTIONAL = 1
STREAM_BIDI = 3
NO_VALIDATE = 2
PEM = 1
ALPN_OK = 0
SET_NAME, SET_GROUPS = 55, 92
ERROR_ZERO_RETURN = 6

library = ctypes.CDLL(sys.argv[1])
for name in (
    *("OSSL_QUIC_client_method", "OSSL_QUIC_server_method", "SSL_CTX_new", "SSL_new"),
    *("SSL_new_stream", "SSL_new_listener", "SSL_accept_connection", "SSL_accept_stream"),
):
    if hasattr(library, name):
        getattr(library, name).restype = ctypes.c_void_p
SELECT = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_char_p),
    ctypes.POINTER(ctypes.c_ubyte),
    *(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p),
)


def new(function: str, *words: object) -> ctypes.c_void_p:
    """What a function makes."""
    made = getattr(library, function)(*words)
    assert made, function
    return ctypes.c_void_p(made)


def frame(kind: int, content: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(content)) + content


def header(fields: list[tuple[bytes, bytes]]) -> bytes:
    # An encoder that was told nothing of the other side uses no table that the other must keep.
    _instructions, block = pylsqpack.Encoder().encode(0, fields)
    return frame(HEADERS, block)


def frames(content: bytes) -> list[tuple[int, bytes]]:
    buffer, found = Buffer(data=content), []
    while not buffer.eof():
        kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
        found.append((kind, buffer.pull_bytes(length)))
    return found


def write(stream: ctypes.c_void_p, content: bytes, *, last: bool = False) -> None:
    assert library.SSL_write(stream, content, len(content)) == len(content)
    if last:
        assert library.SSL_stream_conclude(stream, ctypes.c_uint64(0)) == 1


def read(stream: ctypes.c_void_p) -> bytes:
    """All that the other side says on a stream."""
    content, part = b"", ctypes.create_string_buffer(4096)
    while (got := library.SSL_read(stream, part, len(part))) > 0:
        content += part.raw[:got]
    assert library.SSL_get_error(stream, got) == ERROR_ZERO_RETURN
    return content


def begin(connection: ctypes.c_void_p) -> None:
    assert library.SSL_set_default_stream_mode(connection, 0) == 1
    control = new("SSL_new_stream", connection, ctypes.c_uint64(UNIDIRECTIONAL))
    write(control, CONTROL_STREAM + frame(SETTINGS, LONGEST_SECTION))
    # It must stay open as long as the connection: who frees a stream has it reset.
    opened.append(control)


opened: list[ctypes.c_void_p] = []


def end(connection: ctypes.c_void_p, *streams: ctypes.c_void_p) -> None:
    while library.SSL_shutdown(connection) == 0:
        pass
    for stream in (*streams, *opened):
        library.SSL_free(stream)
    opened.clear()
    library.SSL_free(connection)


def get(port: str, path: str) -> str:
    context = new("SSL_CTX_new", new("OSSL_QUIC_client_method"))
    for groups in sys.argv[3:]:
        assert library.SSL_CTX_ctrl(context, SET_GROUPS, 0, groups.encode()) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.connect(("127.0.0.1", int(port)))
        bound.setblocking(False)
        connection = new("SSL_new", context)
        library.SSL_ctrl(connection, SET_NAME, 0, b"localhost")
        assert library.SSL_set_alpn_protos(connection, ALPN, len(ALPN)) == 0
        assert library.SSL_set_fd(connection, bound.fileno()) == 1
        assert library.SSL_connect(connection) == 1
        begin(connection)
        request = new("SSL_new_stream", connection, ctypes.c_uint64(0))
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost")]
        write(request, header([*fields, (b":path", path.encode())]), last=True)
        answer = read(request)
        end(connection, request)
    library.SSL_CTX_free(context)
    return b"".join(content for kind, content in frames(answer) if kind == DATA).decode()


@SELECT
def select(_connection: int, chosen: object, length: object, *_: object) -> int:
    chosen[0], length[0] = ALPN[1:], len(ALPN) - 1
    return ALPN_OK


def serve(certificate: str, key: str, trusting: str = "") -> None:
    context = new("SSL_CTX_new", new("OSSL_QUIC_server_method"))
    assert library.SSL_CTX_use_certificate_chain_file(context, certificate.encode()) == 1
    assert library.SSL_CTX_use_PrivateKey_file(context, key.encode(), PEM) == 1
    library.SSL_CTX_set_alpn_select_cb(context, select, None)
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.setblocking(False)
    listener = new("SSL_new_listener", context, ctypes.c_uint64(NO_VALIDATE if trusting else 0))
    assert library.SSL_set_fd(listener, bound.fileno()) == 1
    assert library.SSL_listen(listener) == 1
    print(bound.getsockname()[1], flush=True)
    while True:
        connection = new("SSL_accept_connection", listener, ctypes.c_uint64(0))
        begin(connection)
        streams = []
        while True:
            made = library.SSL_accept_stream(connection, ctypes.c_uint64(0))
            if not made:
                break  # the client has closed the connection
            streams.append(ctypes.c_void_p(made))
            if library.SSL_get_stream_type(streams[-1]) == STREAM_BIDI:
                answer(streams[-1])
        end(connection, *streams)


def answer(stream: ctypes.c_void_p) -> None:
    [block] = [content for kind, content in frames(read(stream)) if kind == HEADERS]
    _instructions, fields = pylsqpack.Decoder(0, 0).feed_header(0, block)
    path = dict(fields)[b":path"]
    length = str(len(path)).encode()
    write(stream, header([(b":status", b"200"), (b"content-length", length)]))
    write(stream, frame(DATA, path), last=True)


if sys.argv[2] == "serve":
    serve(*sys.argv[3:])
else:
    print("ready", flush=True)
    for line in sys.stdin:
        print(get(*line.split()[1:]), flush=True)
