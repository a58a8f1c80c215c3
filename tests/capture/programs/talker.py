# SPDX-License-Identifier: Apache-2.0
"""A small peer that does what standard input says, line by line, and answers each with one line.

listen PORT          TCP on 127.0.0.1; answers the port
accept               answers "accepted" once a connection is there
connect PORT         TCP; answers its own port
say TEXT             through the connection
hear                 answers what was read
udp                  a UDP socket bound to 127.0.0.1; answers its port
send PORT TEXT       a datagram
receive              answers a datagram
close                the connection
child COMMAND...     forks; the child does the command with all sockets; answers "pid answer"
name TEXT            calls itself so
"""

import ctypes
import os
import socket
import sys
from pathlib import Path

sockets = {}


def do(words):
    match words:
        case ["listen", port]:
            sockets["listening"] = socket.create_server(("127.0.0.1", int(port)))
            return sockets["listening"].getsockname()[1]
        case ["accept"]:
            sockets["connection"], _ = sockets["listening"].accept()
            return "accepted"
        case ["connect", port]:
            sockets["connection"] = socket.create_connection(("127.0.0.1", int(port)))
            return sockets["connection"].getsockname()[1]
        case ["say", text]:
            sockets["connection"].sendall(text.encode())
            return "said"
        case ["hear"]:
            return sockets["connection"].recv(4096).decode()
        case ["udp"]:
            sockets["datagrams"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets["datagrams"].bind(("127.0.0.1", 0))
            return sockets["datagrams"].getsockname()[1]
        case ["send", port, text]:
            sockets["datagrams"].sendto(text.encode(), ("127.0.0.1", int(port)))
            return "sent"
        case ["receive"]:
            return sockets["datagrams"].recv(4096).decode()
        case ["close"]:
            sockets["connection"].close()
            return "closed"
        case ["name", text]:
            ctypes.CDLL(None).prctl(15, text.encode(), 0, 0, 0)  # PR_SET_NAME
            return "named"
        case ["user", number]:
            os.setuid(int(number))
            return "changed"
        case ["join", directory]:
            Path(directory, "cgroup.procs").write_text(str(os.getpid()))
            return "joined"
        case ["child", *rest]:
            return child(rest)
    raise ValueError(words)


def child(words):
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(into, str(do(words)).encode())
        os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    with os.fdopen(out) as answer:
        return f"{pid} {answer.read()}"


for line in sys.stdin:
    print(do(line.split()), flush=True)
