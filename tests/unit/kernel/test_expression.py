# SPDX-License-Identifier: Apache-2.0
"""Expressions are compiled by libpcap, and refused in its words."""

import pytest

from ecapture.errors import FeatureMissing, UsageError
from ecapture.kernel import expression
from ecapture.kernel.expression import compile_expression

ETHERNET, RAW = 1, 101


@pytest.fixture(autouse=True)
def _libpcap():
    try:
        expression._library()
    except FeatureMissing as missing:
        pytest.skip(str(missing))


def test_a_program_depends_on_the_link_type():
    ethernet, raw = compile_expression("udp", ETHERNET), compile_expression("udp", RAW)
    assert ethernet[0].k == 12  # the EtherType
    assert raw[0].k == 0  # the IP version
    assert ethernet[-1].code == raw[-1].code == 0x06


@pytest.mark.parametrize(
    ("text", "link_type", "said"),
    [
        ("tcp port", ETHERNET, "syntax error"),
        ("ether host 1:2:3:4:5:6", RAW, "ethernet addresses"),
        ("ip[0] = 5 and arp", ETHERNET, "rejects all packets"),
        ("net 10.0.0.1/8", ETHERNET, "non-network bits"),
        ("port \N{SNOWMAN}", ETHERNET, ""),
    ],
)
def test_a_bad_expression_is_refused_in_the_words_of_libpcap(text, link_type, said):
    with pytest.raises(UsageError) as refused:
        compile_expression(text, link_type)
    assert said in str(refused.value)
    assert text in str(refused.value)
    assert "pcap-filter" in refused.value.hint


def test_without_libpcap_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(expression, "_NAMES", ("libno-such-library.so",))
    with pytest.raises(FeatureMissing) as missing:
        compile_expression("tcp", ETHERNET)
    assert "libpcap0.8" in missing.value.hint
