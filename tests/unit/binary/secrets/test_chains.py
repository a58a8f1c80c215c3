# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.secrets.chains import (
    BORINGSSL_FROM_EXPORTER,
    OPENSSL_FROM_CLIENT,
    accessor_chains,
    beside,
    chain,
    from_master_function,
    implied,
    logged_random,
    mentions,
    stored_in_argument,
    updated_secrets,
)
from ecapture.binary.secrets.evaluate import Pointer, Read, Trace
from ecapture.binary.secrets.sites import Chain, How


def walks(chains) -> dict[str, str]:
    return {name: str(chain) for name, chain in chains.items()}


def accessors(assemble, **bodies):
    code = assemble(**bodies)
    return walks(accessor_chains(code.evaluator, {name: code.address(name) for name in bodies}))


def test_chain_of_another_argument_or_outside_of_a_structure_is_none():
    assert chain(Pointer(0, (0xA8,), 0xB8), 32) == Chain((0xA8, 0xB8), 32, How.EVALUATED)
    assert chain(Pointer(1, (), 8), 32) is None
    assert chain(Pointer(-1, (), 8), 32) is None
    assert chain(Pointer(0, (), -8), 32) is None
    assert chain(Pointer(0, (), 1 << 20), 32) is None


def test_a_copied_field_is_the_source_of_the_copy(assemble):
    body = """
    mov 0xa8(%rdi), %rax
    mov %rsi, %rdi
    lea 0xb8(%rax), %rsi
    jmp *%r11
    """
    assert accessors(assemble, SSL_get_client_random=body) == {"client_random": "a8+b8"}


def test_a_copy_that_was_written_out_starts_at_the_lowest_load(assemble):
    body = """
    mov 0xa8(%rdi), %rax
    movdqu 0xc8(%rax), %xmm0
    movdqu 0xb8(%rax), %xmm1
    movups %xmm0, 0x10(%rsi)
    movups %xmm1, (%rsi)
    ret
    """
    assert accessors(assemble, SSL_get_client_random=body) == {"client_random": "a8+b8"}


def test_fields_behind_the_session_are_joined(assemble):
    found = accessors(
        assemble,
        SSL_get_session="mov 0x30(%rdi), %rax\nmov 0x1d0(%rax), %rax\nret",
        SSL_SESSION_get0_cipher="mov 0xc8(%rdi), %rax\nret",
        SSL_CIPHER_get_id="movzwl 0x10(%rdi), %eax\nor $0x3000000, %eax\nret",
        SSL_SESSION_get_master_key="lea 0xa(%rdi), %rax\nxchg %rsi, %rdi\n"
        "mov %rax, %rsi\njmp *%r11",
    )
    assert found == {
        "session": "30+1d0",
        "cipher_id": "30+1d0+c8+10",
        "master_key": "30+1d0+a",
    }


def test_an_accessor_with_two_answers_gives_none(assemble):
    body = "cmpl $1, 0x10(%rdi)\nje 1f\nmov 0x20(%rdi), %eax\nret\n1: mov 0x30(%rdi), %eax\nret"
    assert accessors(assemble, SSL_version=body) == {}


def test_randoms_that_are_printed():
    trace = Trace()
    for offset, size in ((0x78, 1), (0x188, 1), (0x189, 1), (0xCF0, 1), (0xCF1, 1), (0x40, 8)):
        trace.reads[Read(Pointer(0, (), offset), size)] = None
    assert [str(found) for found in logged_random(trace)] == ["188", "cf0"]


def test_random_that_is_printed_by_vectors():
    trace = Trace()
    for offset in (0x188, 0x198, 0x1A8):  # what follows may be read as well
        trace.reads[Read(Pointer(0, (), offset), 16)] = None
    assert [str(found) for found in logged_random(trace)] == ["188"]


def test_secrets_beside_a_known_one():
    client = Chain((0x77C,), 64, How.EVALUATED)
    assert walks(beside(client, OPENSSL_FROM_CLIENT, 64)) == {
        "handshake_secret": "5bc",
        "handshake_hash": "73c",
    }
    exporter = Chain((0x30, 0x182), 48, How.EVALUATED)
    found = beside(exporter, BORINGSSL_FROM_EXPORTER, 48)
    assert walks(found) == {"write_application": "30+120", "read_application": "30+151"}
    assert {chain.how for chain in found.values()} == {How.ARITHMETIC}


def test_nothing_stands_before_the_start_of_an_object():
    assert beside(Chain((0x20,), 64, How.EVALUATED), OPENSSL_FROM_CLIENT, 64) == {}


UPDATE = """
    lea 0x77c(%rdi), %r9
    cmp %esi, 0x78(%rdi)
    {choice}
    1: call *%r11
    ret
"""


@pytest.mark.parametrize(
    "choice",
    [
        "jne 1f\nlea 0x7bc(%rdi), %r9",
        "lea 0x7bc(%rdi), %rax\ncmove %rax, %r9",
        "mov $0x77c, %eax\nmov $0x7bc, %ecx\ncmove %rcx, %rax\nlea (%rdi,%rax), %r9",
    ],
)
def test_update_of_keys_takes_one_secret_or_the_other(assemble, choice):
    trace = assemble(f=UPDATE.format(choice=choice)).trace("f")
    pair = updated_secrets(trace)
    assert pair is not None
    assert [str(chain) for chain in pair] == ["77c", "7bc"]
    assert mentions(trace, pair)
    assert not mentions(trace, [Chain((0x7FC,), 64, How.EVALUATED)])


def test_two_places_that_are_no_neighbours_are_no_secrets(assemble):
    choice = "jne 1f\nlea 0x7c0(%rdi), %r9"
    assert updated_secrets(assemble(f=UPDATE.format(choice=choice)).trace("f")) is None


def test_what_follows_from_other_walks():
    old = {"version": Chain((0,), 4, How.EVALUATED), "session": Chain((8,), 8, How.EVALUATED)}
    assert implied(old) == {}
    new = {
        "version": Chain((0x48,), 4, How.EVALUATED),
        "master_key": Chain((0x900, 0x50), 48, How.EVALUATED),
    }
    assert walks(implied(new)) == {"object_type": "0", "session": "900"}


def test_master_function_names_both_randoms_and_the_key(assemble):
    body = """
    mov 0x80(%rdi), %rax
    lea 0xa4(%rax), %rcx
    lea 0xc4(%rax), %rdx
    mov 0x130(%rdi), %rsi
    add $0x14, %rsi
    call *%r11
    mov $48, %eax
    ret
    """
    trace = assemble(f=body).trace("f")
    session = Chain((0x130,), 8, How.EVALUATED)
    assert walks(from_master_function(trace, session)) == {
        "client_random": "80+c4",
        "master_key": "130+14",
    }
    assert "master_key" not in from_master_function(trace, None)


def test_address_stored_through_an_argument(assemble):
    body = "lea 0x50(%rdi), %rax\nmov %rax, (%rsi)\nlea 0x70(%rdi), %rax\nmov %rax, (%rdx)\nret"
    trace = assemble(f=body).trace("f")
    assert str(stored_in_argument(trace, 1, 32)) == "50"
    assert str(stored_in_argument(trace, 2, 32)) == "70"
    assert stored_in_argument(trace, 3, 32) is None
