# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecapture.errors import UsageError
from ecapture.pipeline.expression import (
    DEPTH_LIMIT,
    LENGTH_LIMIT,
    All,
    Any,
    Comparison,
    FieldType,
    Not,
    parse,
)
from ecapture.pipeline.pattern import Pattern

FIELDS = {
    "method": FieldType("text"),
    "path": FieldType("text"),
    "status": FieldType("number"),
    "size": FieldType("size"),
    "duration": FieldType("duration"),
    "direction": FieldType("text", ("read", "write")),
}


def shape(tree):
    """A tree as tuples; patterns by their text."""
    if isinstance(tree, Comparison):
        value = tree.value
        return (tree.field, tree.operator, value.text if isinstance(value, Pattern) else value)
    if isinstance(tree, Not):
        return ("not", shape(tree.part))
    return ("all" if isinstance(tree, All) else "any", *map(shape, tree.parts))


A, B, C = ("method", "==", "A"), ("method", "==", "B"), ("method", "==", "C")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("method == A", A),
        ("method==A", A),
        ("METHOD == A", A),
        ("method == 'A'", A),
        ('method == "A"', A),
        ("method == A and method == B or method == C", ("any", ("all", A, B), C)),
        ("method == A or method == B and method == C", ("any", A, ("all", B, C))),
        ("(method == A or method == B) and method == C", ("all", ("any", A, B), C)),
        ("method==A&&method==B||method==C", ("any", ("all", A, B), C)),
        ("not method == A and method == B", ("all", ("not", A), B)),
        ("!(method == A) AND NOT (method == B)", ("all", ("not", A), ("not", B))),
        ("not not method == A", ("not", ("not", A))),
        ("method != A", ("method", "!=", "A")),
        ("status >= 500", ("status", ">=", 500)),
        ("status == '500'", ("status", "==", 500)),
        ("size > 10k", ("size", ">", 10240)),
        ("size > 1.5m", ("size", ">", 1.5 * (1 << 20))),
        ("size > 2GiB", ("size", ">", 2 << 30)),
        ("size < 12", ("size", "<", 12)),
        ("duration > 250ms", ("duration", ">", 250e6)),
        ("duration > 2s", ("duration", ">", 2e9)),
        ("duration <= 1.5m", ("duration", "<=", 90e9)),
        ("path ~ ^/(a|b)$", ("path", "~", "^/(a|b)$")),
        ("(path ~ ^/(a|b)$)", ("path", "~", "^/(a|b)$")),
        (r'path ~ "\d+ \"x\" \\."', ("path", "~", r'\d+ "x" \.')),
        ("path ~ 'a b'", ("path", "~", "a b")),
        ("path == ''", ("path", "==", "")),
        ("path == and", ("path", "==", "and")),
        ("direction == READ", ("direction", "==", "READ")),
        ("\n method\t==\nA ", A),
    ],
)
def test_reads(text, expected):
    assert shape(parse(text, FIELDS)) == expected


@pytest.mark.parametrize(
    "text, caret, expected",
    [
        ("", 0, "expected a field (method, path,"),
        ("   ", 3, "expected a field"),
        ("methd == GET", 0, "expected a field (method, path,"),
        ("method", 6, "expected an operator that method has: == != ~"),
        ("method = GET", 7, "expected an operator"),
        ("method > GET", 7, "expected an operator that method has: == != ~"),
        ("status ~ 5", 7, "expected an operator that status has: == != < <= > >="),
        ("method ==", 9, "expected a value"),
        ("method == )", 10, "expected a value"),
        ("method == && path == x", 10, "expected a value"),
        ("method == GET path == /", 14, "expected 'and', 'or' or the end"),
        ("method == GET and", 17, "expected a field"),
        ("(method == GET", 14, "closing parenthesis for the one at column 1"),
        ("method == GET)", 13, "expected 'and', 'or' or the end"),
        ("not", 3, "expected a field"),
        ("status == 5xx", 10, "expected a whole number"),
        ("status == -1", 10, "expected a whole number"),
        ("size > 10q", 7, "expected a size such as 512, 10k or 1.5m"),
        ("duration > 250", 11, "expected a duration such as 250ms"),
        ("path ~ [", 7, "expected a regular expression: unterminated character set"),
        ("path ~ abc(", 10, "expected a regular expression: missing )"),
        (r"path ~ '\\d('", 11, "expected a regular expression: missing )"),
        (r"path ~ (a)\1", 7, "expected a regular expression: a backreference cannot be used"),
        ("path == 'x", 10, "expected a closing ' for the one at column 9"),
        ("direction == up", 13, "expected a value that direction can have: read, write"),
        ("status == " + "9" * 30, 10, "expected a whole number"),
    ],
)
def test_refuses_with_a_caret(text, caret, expected):
    with pytest.raises(UsageError) as caught:
        parse(text, FIELDS, option="--filter")
    first, shown, pointed = str(caught.value).split("\n")
    assert first.startswith("--filter: ")
    assert expected in first
    assert shown == "  " + text
    assert pointed == " " * (2 + caret) + "^"
    assert caught.value.hint


def test_what_does_not_print_takes_one_column():
    with pytest.raises(UsageError) as caught:
        parse("method\x1b[2J\n== A", FIELDS)
    assert str(caught.value).split("\n")[1:] == ["  method [2J == A", "        ^"]


@pytest.mark.parametrize("opening", ["(", "not ", "!"])
def test_depth_is_bounded(opening):
    close = ")" if opening == "(" else ""
    fits = DEPTH_LIMIT - 1
    assert parse(f"{opening * fits}method == A{close * fits}", FIELDS)
    with pytest.raises(UsageError, match="within one another"):
        parse(f"{opening * 900}method == A{close * 900}", FIELDS)


def test_siblings_are_not_depth():
    assert len(parse(" or ".join(["(status == 1)"] * 200), FIELDS).parts) == 200


def test_length_is_bounded():
    with pytest.raises(UsageError, match="more than"):
        parse("method == " + "A" * LENGTH_LIMIT, FIELDS)


@given(
    st.lists(
        st.sampled_from(
            [
                "method",
                "status",
                "path",
                "==",
                "~",
                "(",
                ")",
                "and",
                "or",
                "not",
                "!",
                "'",
                '"',
                "A",
                "\\",
                "200",
                "&&",
                "||",
                "[",
                "*",
                " ",
                " ",
                "\x00",
                "é",
            ]
        ),
        max_size=14,
    ).map("".join)
)
@settings(max_examples=500, deadline=None)
def test_garbage_is_a_usage_error_or_a_tree(text):
    try:
        tree = parse(text, FIELDS)
    except UsageError as error:
        complaint = str(error)
    else:
        assert isinstance(tree, Comparison | All | Any | Not)
        return
    assert complaint.split("\n")[2].strip() == "^"
