# SPDX-License-Identifier: Apache-2.0
"""Thirty-two sessions at once, each saying numbered statements as a user of its own.

``postgres_crowd.py PORT BINARIES``: a quarter each by psycopg, asyncpg, psql and pgbench. Every
tenth statement fails. What each says is told by ``said``, which the tests compare with.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import psycopg

SESSIONS = 32
EACH = 30
LONG = "x" * 60_000
_WAYS = ("psycopg", "asyncpg", "psql", "pgbench")


def way(number: int) -> str:
    """Which client a session is of."""
    return _WAYS[number % len(_WAYS)]


def database(number: int) -> str:
    """Whom it talks to."""
    return f"d{number % 2}"


def fails(index: int) -> bool:
    """Whether a statement divides by zero."""
    return index % 10 == 9


def said(number: int) -> list[tuple[str, list[str], bool]]:
    """(text, parameters, whether it fails) of each statement of a session."""
    found = []
    for index in range(EACH):
        # pgbench gives up at the first error
        divisor = 0 if fails(index) and way(number) != "pgbench" else 1
        if way(number) == "psycopg":
            text = f"SELECT {number}, {index}, $1, 1/$2::int"
            value = LONG if index == 5 else f"v{number}.{index}"
            found.append((text, [value, str(divisor)], divisor == 0))
        elif way(number) == "asyncpg":
            text = f"SELECT {number}, $1::int, 1/$2::int"
            found.append((text, [str(index), str(divisor)], divisor == 0))
        else:
            mark = LONG if index == 5 else f"s{number}"
            found.append((f"SELECT {number}, {index}, 1/{divisor}, '{mark}';", [], divisor == 0))
    return found


def by_psycopg(number: int, port: int) -> None:
    with psycopg.connect(
        host="127.0.0.1", port=port, user=f"u{number}", dbname=database(number), autocommit=True
    ) as session:
        for text, values, _fails in said(number):
            try:
                session.execute(text.replace("$1", "%s").replace("$2", "%s"), values, prepare=False)
            except psycopg.errors.DivisionByZero:
                continue


async def by_asyncpg(number: int, port: int) -> None:
    session = await asyncpg.connect(
        host="127.0.0.1", port=port, user=f"u{number}", database=database(number), ssl=False
    )
    for text, values, _fails in said(number):
        try:
            await session.fetch(text, *map(int, values))
        except asyncpg.DivisionByZeroError:
            continue
    await session.close()


def by_command(number: int, port: int, binaries: Path) -> None:
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", f"u{number}"]
    environment = {"PATH": "/usr/bin:/bin", "PGSSLMODE": "disable"}
    lines = [text for text, _values, _fails in said(number)]
    if way(number) == "psql":
        command = [binaries / "psql", "-X", "-q", *where, database(number)]
    else:
        command = [binaries / "pgbench", "-n", "-t", "1", "-M", "extended", "-f", "/dev/stdin"]
        command += [*where, database(number)]
    subprocess.run(
        command,
        input="\n".join(lines) + "\n",
        text=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def main() -> None:
    port, binaries = int(sys.argv[1]), Path(sys.argv[2])
    threads = []
    for number in range(SESSIONS):
        if way(number) == "psycopg":
            threads.append(threading.Thread(target=by_psycopg, args=(number, port)))
        elif way(number) != "asyncpg":
            threads.append(threading.Thread(target=by_command, args=(number, port, binaries)))

    async def rest() -> None:
        await asyncio.gather(
            *(by_asyncpg(number, port) for number in range(SESSIONS) if way(number) == "asyncpg")
        )

    for thread in threads:
        thread.start()
    asyncio.run(rest())
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
