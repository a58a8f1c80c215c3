# SPDX-License-Identifier: Apache-2.0
from ecapture.protocols.http1_pairing import MAX_WAITING, Pairing


def test_answers_come_in_order_and_informational_ones_keep_the_place():
    pairing = Pairing()
    first, second = pairing.ask("GET"), pairing.ask("HEAD")
    assert (first.number, second.number) == (1, 2)
    assert pairing.answer(final=False) is first
    assert not first.answered
    assert pairing.answer(final=True) is first
    assert first.answered
    assert pairing.answer(final=True) is second


def test_an_answer_to_nothing_is_an_exchange_of_its_own():
    pairing = Pairing()
    early = pairing.answer(final=False)
    assert (early.number, early.method) == (1, "")
    assert pairing.answer(final=True) is early
    assert pairing.ask("GET").number == 2


def test_after_losses_earlier_requests_count_as_answered():
    pairing = Pairing()
    pairing.ask("GET")
    pairing.unsure = True
    later = pairing.ask("POST")
    assert pairing.answer(final=True) is later
    assert not pairing.unsure


def test_what_waits_is_bounded():
    pairing = Pairing()
    for _ in range(MAX_WAITING + 5):
        pairing.ask("GET")
    assert len(pairing.waiting) == MAX_WAITING


def test_what_was_forgotten_keeps_its_place():
    pairing = Pairing()
    for _ in range(MAX_WAITING + 2):
        pairing.ask("GET")
    answers = [pairing.answer(final=final) for final in (False, True, True, True)]
    assert [answer.number for answer in answers] == [1, 1, 2, 3]
    assert [answer.method for answer in answers] == ["", "", "", "GET"]
    pairing.lose(missing=False)
    assert pairing.answer(final=True).number == 4
    assert pairing.ask("GET") is pairing.answer(final=True)


def test_where_bytes_are_missing_the_last_request_is_answered():
    pairing = Pairing()
    pairing.ask("HEAD")
    last = pairing.ask("GET")
    pairing.lose(missing=True)
    assert pairing.answer(final=True) is last


def test_where_bytes_are_missing_nobody_knows_whom_pipelined_requests_are_answered_by():
    pairing = Pairing()
    for _ in range(4):
        pairing.ask("GET")
    pairing.answer(final=True)
    pairing.lose(missing=True)
    assert (pairing.answer(final=True).number, pairing.answer(final=True).method) == (5, "")
