# SPDX-License-Identifier: Apache-2.0
"""Real servers on loopback, each with a certificate made for the session."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness import DEADLINE, Lines, wait_until

PROGRAMS = Path(__file__).parent / "programs"


class Certificate(NamedTuple):
    """A self-signed certificate for localhost and its key, as files."""

    certificate: Path
    key: Path


class Server(NamedTuple):
    """Something that listens. ``pids`` serve; ``process`` is the one that was started."""

    port: int
    pids: tuple[int, ...]
    process: subprocess.Popen[str]


def make_certificate(folder: Path) -> Certificate:
    """Makes a certificate with the openssl command."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", made.key, "-out", made.certificate),
        ],
        check=True,
        capture_output=True,
    )
    return made


def free_port() -> int:
    """A port that nobody listens on now; for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(*words: object, **how: object) -> Iterator[subprocess.Popen[str]]:
    """A process with text pipes that is ended with the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True} | how
    with subprocess.Popen([str(word) for word in words], **pipes) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def s_server(certificate: Certificate, *options: object) -> Iterator[tuple[Server, Lines]]:
    """``openssl s_server``; what clients say to it are its lines."""
    words = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificate.certificate]
    words += ["-key", certificate.key, *options]
    with running(*words) as process:
        said = Lines(process.stdout)
        line = said.wait_for(lambda text: text.startswith("ACCEPT"), "ACCEPT")
        yield Server(int(re.search(r":(\d+)\s*$", line)[1]), (process.pid,), process), said


_HTTPS = """
import http.server, ssl, sys
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def answer(self):
        said = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    do_GET = do_POST = answer
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def https_server(certificate: Certificate) -> Iterator[Server]:
    """CPython's http.server behind TLS; answers with the body it was sent."""
    with running(sys.executable, "-c", _HTTPS, *certificate) as process:
        yield Server(int(process.stdout.readline()), (process.pid,), process)


@contextmanager
def web_server(certificate: Certificate) -> Iterator[Server]:
    """aiohttp with the paths that ``programs/web_server.py`` tells of."""
    with running(sys.executable, PROGRAMS / "web_server.py", *certificate) as process:
        yield Server(int(process.stdout.readline()), (process.pid,), process)


_NGINX = """
worker_processes 2;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl{http2};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {certificate.certificate};
        ssl_certificate_key {certificate.key};
        root {folder}/files;
    }}
}}
"""


@contextmanager
def nginx(folder: Path, certificate: Certificate, *, http2: bool = False) -> Iterator[Server]:
    """nginx with two forked workers that serve ``folder/nginx/files``."""
    place = folder / "nginx"
    (place / "files").mkdir(parents=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(
        folder=place,
        certificate=certificate,
        port=port,
        user=user,
        http2=" http2" if http2 else "",
    )
    (place / "nginx.conf").write_text(text)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with running(program, "-p", place, "-c", place / "nginx.conf") as process:
        wait_until(lambda: listens(port) and len(children(process.pid)) == 2, "nginx listens")
        yield Server(port, tuple(children(process.pid)), process)


def listens(port: int) -> bool:
    """Whether somebody accepts on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> list[int]:
    """Child processes of a process's first thread."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def trusting(certificate: Certificate) -> ssl.SSLContext:
    """A client's context that knows the certificate."""
    return ssl.create_default_context(cafile=str(certificate.certificate))
