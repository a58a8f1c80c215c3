# SPDX-License-Identifier: Apache-2.0
"""nginx and wrk over TLS on loopback, with a certificate and a configuration of their own.

One worker process, so that a tracer can be pointed at it; connections are kept, so that requests
and not handshakes are measured.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from watch import DEADLINE_S, BenchmarkError

BODY_BYTES = 1000
FILE_BYTES = 1 << 20
_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        location / {{ default_type text/plain; return 200 "{body}"; }}
        location /file {{ root {directory}; }}
    }}
}}
"""


def missing_programs() -> list[str]:
    """Which of the programs needed here are not installed."""
    return [name for name in ("nginx", "wrk", "openssl") if shutil.which(name) is None]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """A running nginx; ``worker`` is the process id of its only worker.

    ``/file`` has FILE_BYTES and is written in pieces of 16 KiB, everything else has BODY_BYTES.
    """

    def __init__(self, directory: Path) -> None:
        self.port = _free_port()
        request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
        files = ["-keyout", directory / "key.pem", "-out", directory / "certificate.pem"]
        subprocess.run(
            [*request.split(), "-subj", "/CN=localhost", *files], check=True, capture_output=True
        )
        (directory / "nginx.conf").write_text(
            _CONFIGURATION.format(
                directory=directory,
                port=self.port,
                body="x" * BODY_BYTES,
                user="user root;" if os.geteuid() == 0 else "",  # whose directory it is
            )
        )
        (directory / "file").write_bytes(b"0123456789abcdef" * (FILE_BYTES // 16))
        self._process = subprocess.Popen(
            ["nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", "stderr"],
            stderr=subprocess.DEVNULL,
        )
        self.worker = self._await_worker()

    def _await_worker(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and children.read_text():
                    return int(children.read_text().split()[0])
            time.sleep(0.01)
        raise BenchmarkError("nginx did not start")

    def load(self, seconds: int, path: str = "/") -> tuple[int, float]:
        """Run wrk; (requests answered, requests a second)."""
        done = subprocess.run(
            ["wrk", "-t1", "-c8", f"-d{seconds}s", f"https://127.0.0.1:{self.port}{path}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_S,
        )
        requests = re.search(r"(\d+) requests in", done.stdout)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if not requests or not rate or "Non-2xx" in done.stdout:
            raise BenchmarkError(f"wrk: {done.stdout}")
        return int(requests[1]), float(rate[1])

    def load_at(self, rate: int, seconds: int) -> tuple[int, float]:
        """Run h2load at so many requests a second over HTTP/1.1; as ``load``."""
        clients = 8
        words = ["h2load", "--h1", f"-c{clients}", f"-n{rate * seconds}", f"--rps={rate / clients}"]
        done = subprocess.run(
            [*words, f"https://127.0.0.1:{self.port}/"],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_S,
        )
        found = re.search(r"finished in [^,]+, ([\d.]+) req/s", done.stdout)
        succeeded = re.search(r"(\d+) succeeded", done.stdout)
        if not found or not succeeded:
            raise BenchmarkError(f"h2load: {done.stdout}")
        return int(succeeded[1]), float(found[1])

    def stop(self) -> None:
        """End it as its own signal handling wants."""
        self._process.terminate()
        self._process.wait(DEADLINE_S)
