# SPDX-License-Identifier: Apache-2.0
"""A demonstration that needs only this machine: a local HTTPS server, curl, and ecapture beside."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

GREETING = b"Hello from the demonstration server: you read this although it was encrypted.\n"


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers everything with the greeting."""

    def do_GET(self) -> None:
        """Sends it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(GREETING)))
        self.end_headers()
        self.wfile.write(GREETING)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing: ecapture does."""


def certificate(folder: Path) -> Path:
    """A self-signed certificate with its key, in one file."""
    path = folder / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", path, "-out", folder / "certificate.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + (folder / "certificate.pem").read_bytes())
    return path


def main() -> int:
    ecapture = Path(sys.executable).parent / "ecapture"
    with tempfile.TemporaryDirectory() as folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(Path(folder)))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/demonstration"
        command = [ecapture, "tls", *sys.argv[1:], "--", "curl", "--silent", "--insecure", url]
        print(
            f"$ sudo ecapture tls -- curl --silent --insecure {url}\n", file=sys.stderr, flush=True
        )
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
