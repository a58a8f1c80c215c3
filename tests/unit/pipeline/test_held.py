# SPDX-License-Identifier: Apache-2.0
"""Packets that wait for secrets: in order, each once, not a moment longer than they must."""

import io
import ssl
import subprocess

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from frames import CLIENT, SERVER, Stream, udp
from tls_talk import talk

from ecapture.events import Interface, Packets, ProcessExit, Secret
from ecapture.formats.keylog import KeyLogFormat
from ecapture.formats.pcapng import (
    LinkType,
    decryption_secrets,
    enhanced_packet,
    interface_description,
    process_option,
    section_header,
)
from ecapture.pipeline.held import PATIENCE_NS, TOLD_PATIENCE_NS, Held

START = 1_767_323_045_000_000_000
RANDOM = bytes(range(32))
CLIENT_HELLO = b"\x16\x03\x01\x00\x50\x01\x00\x00\x4c\x03\x03" + RANDOM + bytes(50)
SERVER_HELLO = (
    b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c\x03\x03" + bytes(32) + b"\0\x13\x01" + bytes(9)
)
SERVER_HELLO_1_2 = SERVER_HELLO.replace(b"\0\x13\x01", b"\0\xc0\x2f")
TRAFFIC = (
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_TRAFFIC_SECRET_0",
    "CLIENT_TRAFFIC_SECRET_0",
)
TALKS = pytest.mark.needs("program:openssl")


def secret(label, random=RANDOM, key=bytes(48), now=0):
    return Secret(START + now, 2, 3, 4, "curl", (2, 0x7000, 5), label, random, key)


def block(frame):
    return enhanced_packet(0, START, frame)


def blocks(stream, by_server, payload):
    return b"".join(map(block, stream.say(by_server, payload)))


class Trial:
    """A Held that is told the time in nanoseconds since it began, and what came out of it."""

    def __init__(self, link_type=LinkType.ETHERNET, **options):
        self.held = Held(**options)
        interface = Interface(START, 0, "eth0", link_type, 262144)
        assert self.held.feed([interface]) == [interface]
        self.given = b""
        self.written = b""

    def packets(self, batch, now=0):
        self.given += batch
        return self._write(self.held.feed([Packets(START + now, batch)]))

    def secrets(self, *labels, random=RANDOM, now=0):
        told = [secret(label, random, now=now) for label in labels]
        events = self.held.feed(told)
        assert events[:1] == told[:1], "secrets come first"
        assert [event for event in events if type(event) is Secret] == told
        return self._write([event for event in events if type(event) is Packets])

    def due(self, now):
        return self._write(self.held.flush(START + now))

    def close(self):
        out = self._write(self.held.close())
        assert self.written == self.given, "in order, each once"
        assert self.held.held_bytes == 0
        return out

    def _write(self, events):
        pieces = [event.blocks for event in events]
        assert b"" not in pieces
        written = b"".join(pieces)
        self.written += written
        assert self.given.startswith(self.written)
        return written


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def greeted(stream):
    """A trial that has seen the hello of a client on ``stream``."""
    trial = Trial()
    hello = blocks(stream, False, CLIENT_HELLO)
    assert trial.packets(hello) == hello, "a client's hello needs no secret"
    return trial


def test_without_handshakes_a_batch_passes_as_it_is(stream):
    trial = Trial()
    batch = blocks(stream, False, bytes(100)) * 3
    event = Packets(START, batch)
    [written] = trial.held.feed([event])
    assert written is event


def test_the_answer_waits_until_all_secrets_are_told(greeted, stream):
    before = blocks(stream, True, b"x")
    behind = blocks(stream, False, b"y")
    assert greeted.packets(before + blocks(stream, True, SERVER_HELLO) + behind) == before
    assert greeted.packets(behind) == b""
    for number, label in enumerate(TRAFFIC):
        assert (greeted.secrets(label) != b"") == (number == 3)
    assert greeted.held.held_bytes == 0
    assert greeted.packets(behind) == behind
    assert greeted.close() == b""


def test_before_1_3_one_secret_is_enough(greeted, stream):
    answer = blocks(stream, True, SERVER_HELLO_1_2)
    assert greeted.packets(answer) == b""
    assert greeted.secrets("CLIENT_RANDOM", random=bytes(32)) == b""
    assert greeted.secrets("CLIENT_RANDOM") == answer
    greeted.close()


def test_secrets_that_were_told_before(greeted, stream):
    greeted.secrets(*TRAFFIC)
    answer = blocks(stream, True, SERVER_HELLO)
    assert greeted.packets(answer) == answer


@pytest.mark.parametrize("told, patience", [(0, PATIENCE_NS), (1, TOLD_PATIENCE_NS)])
def test_patience_ends(greeted, stream, told, patience):
    answer = blocks(stream, True, SERVER_HELLO)
    greeted.packets(answer)
    greeted.secrets(*TRAFFIC[:told])
    assert greeted.due(patience - 1) == b""
    assert greeted.due(patience) == answer
    assert greeted.held.late == 0
    greeted.secrets("EXPORTER_SECRET", now=patience)
    assert greeted.held.late == 0, "that one decrypts nothing"
    greeted.secrets(*TRAFFIC[told:], now=patience)
    assert greeted.held.late == 1


@pytest.mark.parametrize("pid, patience", [(2, TOLD_PATIENCE_NS), (3, PATIENCE_NS)])
def test_a_process_that_told_others_may_take_its_time(greeted, stream, pid, patience):
    [frame] = stream.say(True, SERVER_HELLO)
    owners = [process_option(7, "nginx"), process_option(pid, "curl")]
    answer = enhanced_packet(0, START, frame, options=owners)
    assert greeted.packets(answer) == b""
    greeted.secrets("CLIENT_RANDOM", random=b"r" * 32)
    assert greeted.due(patience - 1) == b""
    assert greeted.due(patience) == answer


def test_an_event_that_is_older_than_the_last_does_not_turn_time_back(greeted, stream):
    answer = blocks(stream, True, SERVER_HELLO)
    greeted.packets(answer)
    greeted.secrets(TRAFFIC[0], now=-PATIENCE_NS)
    assert greeted.due(-10 * PATIENCE_NS) == b""
    assert greeted.due(TOLD_PATIENCE_NS) == answer


def test_other_events_do_not_wait(greeted, stream):
    greeted.packets(blocks(stream, True, SERVER_HELLO))
    others = [ProcessExit(START, 1, "curl"), Interface(START, 1, "tun0", LinkType.RAW, 128)]
    assert greeted.held.feed(others) == others


def test_interfaces_are_of_their_own_kinds(greeted, stream):
    greeted.held.feed([Interface(START, 1, "tun0", LinkType.RAW, 128)])
    [frame] = stream.say(True, SERVER_HELLO)
    assert greeted.packets(enhanced_packet(1, START, frame)) != b"", "that is no IP header"
    assert greeted.packets(enhanced_packet(1, START, frame[14:])) == b""


def test_several_connections_go_in_their_order(greeted, stream):
    other, randoms = Stream(40001), [RANDOM, b"r" * 32]
    greeted.packets(blocks(other, False, CLIENT_HELLO.replace(RANDOM, randoms[1])))
    first, second = (blocks(one, True, SERVER_HELLO) for one in (stream, other))
    assert greeted.packets(first + second) == b""
    assert greeted.secrets(*TRAFFIC, random=randoms[1]) == b"", "it stands behind the first"
    assert greeted.secrets(*TRAFFIC) == first + second


def test_those_behind_wait_on_when_the_first_goes(greeted, stream):
    other = Stream(40001)
    greeted.packets(blocks(other, False, CLIENT_HELLO.replace(RANDOM, b"r" * 32)))
    first, second = (blocks(one, True, SERVER_HELLO) for one in (stream, other))
    tail = blocks(stream, False, b"tail")
    assert greeted.packets(first + tail + second + tail) == b""
    assert greeted.secrets(*TRAFFIC) == first + tail
    assert greeted.due(PATIENCE_NS - 1) == b""
    assert greeted.due(PATIENCE_NS) == second + tail
    greeted.close()


def test_room_is_bounded(stream):
    trial = Trial(held_bytes=4000)
    trial.packets(blocks(stream, False, CLIENT_HELLO))
    answer = blocks(stream, True, SERVER_HELLO)
    trial.packets(answer)
    filler = blocks(stream, False, bytes(1000))
    while not trial.held.hurried:
        trial.packets(filler)
        assert trial.held.held_bytes <= 4000
    assert trial.held.hurried == 1
    trial.secrets(*TRAFFIC)
    assert trial.held.late == 1
    trial.close()


def test_everything_goes_at_the_end(greeted, stream):
    answer = blocks(stream, True, SERVER_HELLO)
    greeted.packets(answer)
    assert greeted.close() == answer


def test_answers_without_a_hello_do_not_wait(stream):
    trial = Trial()
    answer = blocks(stream, True, SERVER_HELLO)
    assert trial.packets(answer) == answer


def test_tables_are_bounded(stream):
    trial = Trial()
    before, after = blocks(stream, False, CLIENT_HELLO).split(RANDOM)
    ports = before.index((40000).to_bytes(2, "big"))
    for number in range(20_000):
        random = number.to_bytes(32, "big")
        hello = before[:ports] + number.to_bytes(2, "big") + before[ports + 2 :] + random + after
        trial.held.feed([Packets(START, hello), secret("CLIENT_RANDOM", random)])
    for table in (trial.held._hellos, trial.held._told):
        assert len(table) == 1 << 14


def test_early_data_waits_for_its_secret(stream):
    trial = Trial()
    extensions = b"\x00\x04\x00\x2a\x00\x00"
    message = b"\3\3" + RANDOM + b"\0" + b"\0\2\x13\x01" + b"\1\0" + extensions
    record = b"\1" + len(message).to_bytes(3, "big") + message
    hello = blocks(stream, False, b"\x16\3\1" + len(record).to_bytes(2, "big") + record)
    assert trial.packets(hello) == b""
    assert trial.secrets("CLIENT_HANDSHAKE_TRAFFIC_SECRET") == b""
    assert trial.secrets("CLIENT_EARLY_TRAFFIC_SECRET") == hello


def quic_pair(pem, key):
    """Datagrams of a handshake, [(by the server, datagram)], and the client's random."""
    client = QuicConnection(
        configuration=QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE
        )
    )
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.load_cert_chain(pem, key)
    told, server = [], None
    client.connect(("10.4.5.6", 443), now=0)
    for now in range(3):
        for datagram, _address in client.datagrams_to_send(now=now):
            if server is None:
                server = QuicConnection(
                    configuration=configuration,
                    original_destination_connection_id=datagram[6 : 6 + datagram[5]],
                )
            told.append((False, datagram))
            server.receive_datagram(datagram, ("10.1.2.3", 5000), now=now)
        for datagram, _address in server.datagrams_to_send(now=now):
            told.append((True, datagram))
            client.receive_datagram(datagram, ("10.4.5.6", 443), now=now)
    return told, client.tls.client_random


@TALKS
def test_quic(tmp_path):
    talk(tmp_path)  # for its certificate
    datagrams, random = quic_pair(tmp_path / "certificate.pem", tmp_path / "key.pem")
    ends = (CLIENT, 5000), (SERVER, 443)
    trial, waiting = Trial(), False
    for by_server, datagram in datagrams:
        way = ends[::-1] if by_server else ends
        written = trial.packets(block(udp(*way, datagram)))
        waiting = waiting or by_server
        assert (written == b"") == waiting
    assert trial.secrets(*TRAFFIC[:3], random=random) == b""
    assert trial.secrets(TRAFFIC[3], random=random) != b""
    trial.close()


def test_quic_early_data_waits_for_its_secret():
    trial = Trial()
    log = io.StringIO()
    configuration = QuicConfiguration(is_client=True, secrets_log_file=log)
    client = QuicConnection(configuration=configuration)
    client.connect(("10.4.5.6", 443), now=0)
    [(datagram, _address)] = client.datagrams_to_send(now=0)
    ends = (CLIENT, 5000), (SERVER, 443)
    assert trial.packets(block(udp(*ends, datagram)))
    early = b"\xd0\0\0\0\1" + bytes(60)
    assert trial.packets(block(udp(*ends, early))) == b""
    assert trial.secrets("CLIENT_EARLY_TRAFFIC_SECRET", random=client.tls.client_random)


def test_a_flood_of_quic_hellos_is_not_decrypted_on_and_on():
    trial = Trial()
    for number in range(2000):
        datagram = b"\xc0\0\0\0\1\x08" + number.to_bytes(8, "big") + b"\0\0\x44\x00" + bytes(1024)
        packet = Packets(START, block(udp((CLIENT, number), (SERVER, 443), datagram)))
        assert trial.held.feed([packet]) == [packet]
    assert trial.held._quic_count == 2000
    assert len(trial.held._quic) <= 200


@TALKS
@pytest.mark.needs("program:tshark")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_wireshark_decrypts_what_was_told_after_the_packets(tmp_path, version):
    """Secrets come when everything has passed; without waiting, nothing would be decrypted."""
    told, stream = talk(tmp_path, version), Stream()
    frames = stream.handshake()
    for by_server, flight in told.flights:
        frames += stream.say(by_server, flight)
    keys = [line.split() for line in told.keys.decode().splitlines()]
    secrets = [secret(x, bytes.fromhex(r), bytes.fromhex(k)) for x, r, k in keys]

    def decrypted(patience_ns):
        held = Held(patience_ns=patience_ns)
        events = held.feed([Interface(START, 0, "eth0", LinkType.ETHERNET, 262144)])
        for number, frame in enumerate(frames):
            block = enhanced_packet(0, START + number, frame)
            events += held.feed([Packets(START + number, block)])
        events += held.feed(secrets)
        assert held.close() == []
        written = [section_header(), interface_description(LinkType.ETHERNET)]
        for event in events:
            if type(event) is Packets:
                written.append(event.blocks)
            elif type(event) is Secret:
                written.append(decryption_secrets(b"".join(KeyLogFormat().encode([event]))))
        path = tmp_path / "talk.pcapng"
        path.write_bytes(b"".join(written))
        shown = subprocess.run(
            ["tshark", "-r", path, "-Y", "http.request", "-T", "fields", "-e", "http.request.uri"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return shown.split()

    assert decrypted(PATIENCE_NS) == ["/secret"]
    assert decrypted(0) == []
