# SPDX-License-Identifier: Apache-2.0
"""An IMAP server behind TLS with one mail, which keeps what went over each connection.

``exact_imap_server.py CERTIFICATE KEY KEYS FOLDER MAIL`` prints its port. Nobody has to log in
(PREAUTH, RFC 3501, 7.1.4). What a connection brought and took stands in FOLDER as PORT.in and
PORT.out, by the port of the client.
"""

from __future__ import annotations

import pathlib
import re
import socket
import ssl
import sys
import threading

certificate, key, keys, folder, mail = sys.argv[1:]
content = pathlib.Path(mail).read_bytes()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.keylog_filename = keys
head, _, text = content.partition(b"\r\n\r\n")
PARTS = {b"": content, b"TEXT": text}
SECTION = re.compile(rb"BODY\.PEEK\[([^]]*)\](?:<(\d+)\.(\d+)>)?")
SELECTED = (
    b"* 1 EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Seen)\r\n"
    b"* OK [UIDVALIDITY 1] same as ever\r\n* OK [UIDNEXT 2] the next\r\n"
)
UNTAGGED = {
    b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\n",
    b"SELECT": SELECTED,
    b"LIST": b'* LIST (\\HasNoChildren) "/" "INBOX"\r\n',
    b"LSUB": b'* LSUB (\\HasNoChildren) "/" "INBOX"\r\n',
}


def fetched(words: bytes) -> bytes:
    """The mail, or the parts of it that are asked for."""
    parts = [b"UID 1", b"FLAGS ()", b"RFC822.SIZE %d" % len(content)]
    for section, first, count in SECTION.findall(words):
        part = PARTS.get(section, head + b"\r\n\r\n")  # all of the head, whatever is asked for
        origin = b"<%s>" % first if first else b""
        if first:
            part = part[int(first) : int(first) + int(count)]
        parts.append(b"BODY[%s]%s {%d}\r\n%s" % (section, origin, len(part), part))
    return b"* 1 FETCH (" + b" ".join(parts) + b")\r\n"


def answer(line: bytes) -> bytes:
    tag, _, words = line.strip().partition(b" ")
    command = words.upper().removeprefix(b"UID ").partition(b" ")[0]
    said = fetched(words) if command == b"FETCH" else UNTAGGED.get(command, b"")
    return said + tag + b" OK done\r\n"


def serve(raw: socket.socket, port: int) -> None:
    kept = pathlib.Path(folder, str(port))
    came, went, rest = b"", b"* PREAUTH [CAPABILITY IMAP4rev1] ready\r\n", b""
    with context.wrap_socket(raw, server_side=True) as connection:
        connection.sendall(went)
        while part := connection.recv(1 << 16):
            came += part
            *lines, rest = (rest + part).split(b"\r\n")
            out = b"".join(map(answer, lines))
            connection.sendall(out)
            went += out
            kept.with_suffix(".in").write_bytes(came)
            kept.with_suffix(".out").write_bytes(went)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        raw, (_, port) = listener.accept()
        threading.Thread(target=serve, args=(raw, port), daemon=True).start()


main()
