# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL client over the libpq of some wheel: ``libpq_client.py FILE``, told line by line.

``query PORT`` connects with TLS, asks, and answers with what the server said. The wheels are of
many versions of Python, whose modules this one cannot load; their libpq it can, and it is libpq
that calls the TLS library.
"""

from __future__ import annotations

import ctypes
import sys

library = ctypes.CDLL(sys.argv[1])
for name in ("PQconnectdb", "PQexec", "PQgetvalue", "PQerrorMessage"):
    getattr(library, name).restype = ctypes.c_void_p


def text(pointer: int | None) -> str:
    return ctypes.string_at(pointer).decode() if pointer else ""


# psycopg loads both when it is imported; libpq alone resolves the other lazily
print("ready", flush=True)
for line in sys.stdin:
    _command, port = line.split()
    asked = f"host=127.0.0.1 port={port} user=u dbname=d sslmode=require sslcert=none sslkey=none"
    connection = ctypes.c_void_p(library.PQconnectdb(asked.encode()))
    result = ctypes.c_void_p(library.PQexec(connection, b"SELECT 42"))
    answer = text(library.PQgetvalue(result, 0, 0)) or text(library.PQerrorMessage(connection))
    library.PQclear(result)
    library.PQfinish(connection)
    print(answer.replace("\n", " "), flush=True)
