# SPDX-License-Identifier: Apache-2.0
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecapture.pipeline.pattern import LENGTH_LIMIT, SUBJECT_LIMIT, Pattern, PatternError

atoms = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[ab]",
        "[^a]",
        r"\d",
        r"\W",
        r"\w",
        r"\s",
        "[0-9_]",
        "^",
        "$",
        r"\b",
        r"\Z",
        "é",
        "\n",
    ]
)
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda ways: f"(?:{'|'.join(ways)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?", "{0}"])).map(
            lambda both: f"({both[0]}){both[1]}"
        ),
        inner.map(lambda text: f"(?i:{text})"),
    ),
    max_leaves=8,
)


@given(patterns, st.text("abAB1_ \né", max_size=9))
@settings(max_examples=600, deadline=None)
def test_agrees_with_re(text, subject):
    assert Pattern(text).search(subject) is (re.search(text, subject) is not None)


@pytest.mark.parametrize(
    "text, subject, expected",
    [
        (r"^/api/v\d+/", "/api/v12/x", True),
        (r"^/api/v\d+/", "/x/api/v12/", False),
        (r"(?i)LOGIN", "/login", True),
        (r"LOGIN", "/login", False),
        (r"\.(js|css)$", "/a/b.css", True),
        (r"\.(js|css)$", "/a/b.css?x", False),
        (r"", "", True),
        (r"x{3}", "xx", False),
        (r"(?a)\w$", "é", False),
        (r"(?s)a.b", "a\nb", True),
    ],
)
def test_known_answers(text, subject, expected):
    assert Pattern(text).search(subject) is expected


@pytest.mark.parametrize(
    "text", [r"(a+)+$", r"^(a|a)*$", r"(a|aa)+$", r".*a.*a.*a.*a.*b$", r"(.*)*x"]
)
def test_is_linear_where_re_is_not(text):
    pattern = Pattern(text)
    started = time.process_time()
    assert not pattern.search("a" * 8000 + "!")
    assert time.process_time() - started < 20  # re does not come back


@pytest.mark.parametrize(
    "text, reason",
    [
        (r"(a)\1", "backreference"),
        (r"(?=a)", "ahead or behind"),
        (r"(?<!a)b", "ahead or behind"),
        (r"(?>a)", "atomic"),
        (r"a++", "possessive"),
        (r"(a)?(?(1)b|c)", "conditional"),
        (r"(?m)^a", "flag m"),
        (r"(?a)\ba", "flag a"),
        (r"((a{100}){100}){100}", "too large"),
        (r"a{99999999999999999999}", "too large"),
        ("(" * 10, "missing )"),
        ("[", "unterminated"),
        ("a" * (LENGTH_LIMIT + 1), "longer"),
    ],
)
def test_refuses(text, reason):
    with pytest.raises(PatternError, match=re.escape(reason)):
        Pattern(text)


def test_an_error_tells_its_place():
    with pytest.raises(PatternError) as caught:
        Pattern("abc(")
    assert caught.value.at == 3


def test_looks_at_a_bounded_part_of_the_subject():
    assert Pattern("x").search("a" * (SUBJECT_LIMIT - 1) + "x")
    assert not Pattern("x").search("a" * SUBJECT_LIMIT + "x")


def test_what_is_learnt_is_bounded():
    pattern = Pattern("(a|b)*c.{10}d")
    subject = "".join(chr(0x100 + n) + "abc"[n % 3] for n in range(30_000))
    for start in range(0, 30_000, 5000):
        pattern.search(subject[start:])
    assert sum(map(len, pattern._states.values())) <= 20_001
