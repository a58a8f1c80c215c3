# SPDX-License-Identifier: Apache-2.0
"""Addresses of conversations whose library never sees a socket: right, or none."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import pytest
import servers
from harness import CAPTURES
from keyed import Obeying

from ecapture.kernel.feature import feature

pytestmark = [
    CAPTURES,
    pytest.mark.skipif(
        not feature("tp_btf:sock_send_length"), reason="needs tp_btf:sock_send_length"
    ),
]
OVERHEAD = 22  # of a record of TLS 1.3 with AES-GCM, header included

# Several connections at once; the client hears in capitals what it said.
SERVER = """
import socketserver, ssl, sys
class Shout(socketserver.BaseRequestHandler):
    def handle(self):
        with context.wrap_socket(self.request, server_side=True) as peer:
            while said := peer.recv(65536):
                peer.sendall(said.upper())
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.suppress_ragged_eofs = True
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    def handle_error(self, *_):  # a client that left without a word
        pass
server = Server(("127.0.0.1", 0), Shout)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def token():
    return uuid.uuid4().hex


class Told:
    """The connections that events with a text had, by that text."""

    def __init__(self, run):
        self.events = [json.loads(line) for line in Path(run.path).read_text().splitlines()]

    def ports(self, text):
        """The client's port in every event with this text; None where it has no addresses."""
        found = [e for e in self.events if text in e.get("text", "")]
        assert found, text
        for event in found:
            assert event["connection"] is None or event["connection"]["found_by"] == "inferred"
        return [event["connection"] and str(event["connection"]["local_port"]) for event in found]


@pytest.fixture
def talk(certificate, capture):
    """A client under capture and how to end it: ``do`` and ``told``."""
    with (
        servers.running(sys.executable, "-c", SERVER, *certificate) as server,
        Obeying(
            "memory_client.py", certificate.certificate, server.stdout.readline().strip()
        ) as client,
        capture("--raw", "--pid", client.process.pid, mode="jsonl", raw=False) as run,
    ):

        def told():
            run.finish()
            assert run.summary["lost"] == 0
            return Told(run)

        client.told = told
        yield client


def test_a_send_right_after_the_write_tells(talk, token):
    port = talk.do("open a")
    talk.do(f"write a {token}")
    talk.do("flush a")
    assert talk.do("read a") == token.upper()
    told = talk.told()
    assert told.ports(token) == told.ports(token.upper()) == [port]


def test_several_writes_in_one_send(talk, token):
    port = talk.do("open a")
    for number in range(3):
        talk.do(f"write a {number}{token}")
    talk.do("flush a")
    talk.do("read a")
    assert talk.told().ports(token) == [port] * 3


@pytest.mark.parametrize("decoy", ["noise", "datagram"])
def test_another_send_in_between_is_not_taken_for_it(talk, token, decoy):
    port = talk.do("open a")
    talk.do(f"write a {token}")
    talk.do(f"{decoy} {len(token) + 1 + OVERHEAD}")
    talk.do("flush a")
    talk.do("read a")
    talk.do(f"write a again-{token}")
    talk.do("flush a")
    told = talk.told()
    assert set(told.ports(token)) <= {port, None}
    assert told.ports(f"again-{token}") == [port]


def test_sends_out_of_order_are_not_mixed_up(talk, token):
    ports = {name: talk.do(f"open {name}") for name in "ab"}
    for name in "ab":
        talk.do(f"write {name} {name}{token}")
    for name in "ba":
        talk.do(f"flush {name}")
    for name in "ab":
        assert talk.do(f"read {name}") == f"{name}{token}".upper()
    told = talk.told()
    for name in "ab":
        for text in (f"{name}{token}", f"{name}{token}".upper()):
            assert set(told.ports(text)) <= {ports[name], None}


def test_two_conversations_in_turns(talk, token):
    ports = {name: talk.do(f"open {name}") for name in "ab"}
    for number in range(3):
        for name in "ab":
            talk.do(f"write {name} {name}{number}{token}")
            talk.do(f"flush {name}")
    told = talk.told()
    for name in "ab":
        for number in range(3):
            assert told.ports(f"{name}{number}{token}") == [ports[name]]


def test_a_send_by_another_thread_is_no_proof(talk, token):
    port = talk.do("open a")
    talk.do(f"write a {token}")
    talk.do("flushed a")
    talk.do("read a")
    assert set(talk.told().ports(token)) <= {port, None}


def test_a_new_connection_at_an_old_address_of_memory_has_its_own(talk, token):
    ports = []
    for number in range(4):
        ports.append(talk.do("open a"))
        talk.do(f"write a {number}-{token}")
        talk.do("flush a")
        talk.do("close a")
    told = talk.told()
    assert [told.ports(f"{number}-{token}") for number in range(4)] == [[port] for port in ports]
    conversations = {e["conversation"] for e in told.events if token in e.get("text", "")}
    assert len(conversations) == 4
