# SPDX-License-Identifier: Apache-2.0
"""Secrets follow from what OpenSSL keeps, or nothing is said. Values of RFC 8448, section 3."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.key_schedule import expand_label, logged_secrets

MASTER = bytes.fromhex("18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
FINISHED_HASH = bytes.fromhex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
CLIENT = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
SERVER = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
EXPORTER = bytes.fromhex("fe22f881176eda18eb8f44529e6792c50c9a3f89452f68d8ae311b4309d3cf50")
HANDSHAKE = bytes.fromhex("1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac")
CLIENT_HANDSHAKE = bytes.fromhex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
CLIENT_FINISHED = bytes.fromhex("b80ad01015fb2f0bd65ff7d4da5d6bf83f84821d1f87fdc7d3c75b5a7b42d9c4")
APPLICATION = {
    "CLIENT_TRAFFIC_SECRET_0": CLIENT,
    "SERVER_TRAFFIC_SECRET_0": SERVER,
    "EXPORTER_SECRET": EXPORTER,
}


def kept(**arrays):
    """The arrays as they stand in an object, each in 64 bytes; what is not given is other noise."""
    names = "handshake master resumption client server up_to_finished up_to_hello x y"
    return b"".join(
        arrays.get(name, hashlib.sha256(name.encode()).digest()).ljust(64, b"\x5a")
        for name in names.split()
    )


def spelt_out(secret, label, context, name="sha256"):
    """HKDF-Expand-Label written a second time, from RFC 8446, 7.1 and RFC 5869, 2.3."""
    size = hashlib.new(name).digest_size
    label = b"tls13 " + label
    encoded = bytes([0, size, len(label)]) + label + bytes([len(context)]) + context
    return hmac.new(secret, encoded + b"\x01", name).digest()


def test_labels_are_expanded_as_in_the_trace():
    assert expand_label("sha256", CLIENT_HANDSHAKE, b"finished", b"", 32) == CLIENT_FINISHED
    assert spelt_out(CLIENT_HANDSHAKE, b"finished", b"") == CLIENT_FINISHED


def test_application_secrets_follow_whatever_traffic_secrets_are_stored_by_now():
    assert (
        logged_secrets(kept(master=MASTER, up_to_finished=FINISHED_HASH), EXPORTER) == APPLICATION
    )


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("name", ["sha256", "sha384"])
def test_handshake_secrets_are_proven_by_a_finished_key(side, name):
    hello = hashlib.new(name, b"hello").digest()
    finished_hash = hashlib.new(name, b"finished").digest()
    master = hashlib.new(name, b"master").digest()
    told = {
        "client": spelt_out(HANDSHAKE, b"c hs traffic", hello, name),
        "server": spelt_out(HANDSHAKE, b"s hs traffic", hello, name),
    }
    arrays = {
        "handshake": HANDSHAKE.ljust(hashlib.new(name).digest_size, b"\0"),
        "master": master,
        "up_to_finished": finished_hash,
        "up_to_hello": hello,
    }
    # an HMAC's key is padded with zeros, so the longer handshake secret is the same key
    arrays[side] = spelt_out(told[side], b"finished", b"", name)
    found = logged_secrets(kept(**arrays), spelt_out(master, b"exp master", finished_hash, name))
    assert found["CLIENT_HANDSHAKE_TRAFFIC_SECRET"] == told["client"]
    assert found["SERVER_HANDSHAKE_TRAFFIC_SECRET"] == told["server"]
    assert list(found)[2:] == list(APPLICATION)


@pytest.mark.parametrize(
    ("arrays", "exporter"),
    [
        ({"master": MASTER, "up_to_finished": FINISHED_HASH}, bytes(64)),
        ({"master": MASTER}, EXPORTER),
        ({"up_to_finished": FINISHED_HASH}, EXPORTER),
        (
            {"master": bytes(64), "up_to_finished": bytes(64)},
            spelt_out(bytes(32), b"exp master", bytes(32)),
        ),
    ],
)
def test_what_does_not_fit_together_says_nothing(arrays, exporter):
    assert logged_secrets(kept(**arrays), exporter) == {}


@given(st.binary(max_size=700), st.binary(max_size=80))
def test_anything_may_stand_in_memory(memory, exporter):
    assert logged_secrets(memory, exporter) == {}
