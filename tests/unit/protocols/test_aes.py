# SPDX-License-Identifier: Apache-2.0
"""AES against the examples of its standards, and against an independent implementation."""

import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ecapture.protocols.aes import Aes128


def test_the_examples_of_the_standard():
    # FIPS 197, appendices B and C.1
    found = Aes128(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")).block(
        bytes.fromhex("3243f6a8885a308d313198a2e0370734")
    )
    assert found.hex() == "3925841d02dc09fbdc118597196a0b32"
    found = Aes128(bytes(range(16))).block(bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert found.hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100])
def test_counter_mode_agrees_with_another_implementation(length):
    for _ in range(20):
        key, nonce, content = os.urandom(16), os.urandom(12), os.urandom(length)
        other = Cipher(algorithms.AES(key), modes.CTR(nonce + (2).to_bytes(4, "big"))).encryptor()
        assert Aes128(key).counter(nonce, 2, content) == other.update(content)
