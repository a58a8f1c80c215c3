# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ecapture.binary.calls.inner import inner_functions
from ecapture.binary.elf import ElfFile

CALLS = ("SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex")


def inner(library, names=CALLS):
    with ElfFile(library.path) as elf:
        return inner_functions(elf, {name: library.truth[name] for name in names})


def test_exported_functions_lead_to_the_one_that_they_share(nameless):
    for kind, writing in (
        ("numbered", "ssl_write_internal"),
        ("flags", "ssl_write_internal+flags"),
    ):
        library = nameless(kind)
        assert inner(library) == (
            {
                "ssl_read_internal": library.truth["ssl_read_internal"],
                writing: library.truth["ssl_write_internal"],
            },
            {
                "SSL_read": "ssl_read_internal",
                "SSL_read_ex": "ssl_read_internal",
                "SSL_write": writing,
                "SSL_write_ex": writing,
            },
        )


def test_what_does_the_work_itself_leads_nowhere(nameless):
    library = nameless("named", "-DHIDDEN=__attribute__((always_inline))inline")
    assert inner(library) == ({}, {})


def test_a_function_that_does_some_of_it_keeps_its_own_probe(nameless):
    more = r"""
    int half(struct ssl *s, void *buf, int num)
    {
        size_t n;
        if (s->type) return s->method->read(s, buf, num, &n) > 0 ? (int)n : -1;
        return ssl_read_internal(s, buf, num, &n) > 0 ? (int)n : -1;
    }
    """
    library = nameless("named", more=more)
    with ElfFile(library.path) as elf:
        found, through = inner_functions(elf, {"SSL_read": library.truth["half"]})
    assert found == {"ssl_read_internal": library.truth["ssl_read_internal"]}
    assert through in ({}, {"SSL_read": "ssl_read_internal"})


ONWARD = r"""
int SSL_write_ex2(struct ssl *s, const void *buf, size_t num, unsigned long flags, size_t *written)
{
    int ret = ssl_write_internal(s, buf, num, %s, written);
    return ret < 0 ? 0 : ret;
}
int onward(struct ssl *s, const void *buf, size_t num, size_t *written)
{
    %s
    return SSL_write_ex2(s, buf, num, 0, written);
}
"""


@pytest.mark.parametrize(
    ("flags", "before", "same"),
    [
        ("flags", "", True),
        ("0", "", False),
        ("flags", "if (num > 9) return s->method->write(s, buf, num, written);", False),
    ],
    ids=["hands all on", "keeps something", "does some of it"],
)
def test_a_function_may_go_on_through_another_exported_one(nameless, flags, before, same):
    """As SSL_write_ex does since 3.3, through the stub for SSL_write_ex2."""
    library = nameless("flags", more=ONWARD % (flags, before), replaceable=True)
    named = {"SSL_write": library.truth["SSL_write"], "SSL_write_ex": library.truth["onward"]}
    with ElfFile(library.path) as elf:
        _, through = inner_functions(elf, named)
    assert through["SSL_write"] == "ssl_write_internal+flags"
    assert ("SSL_write_ex" in through) == same


def test_nothing_is_known_of_other_libraries(nameless):
    library = nameless("boringssl")
    assert inner(library, ("SSL_read", "SSL_write")) == ({}, {})
