# SPDX-License-Identifier: Apache-2.0
r"""What a credential looks like, and how one is masked in bytes. The stage is ``redact``.

Tables first: they are what the documentation is made from. Names are compared without case and
without anything but letters and digits, so ``access_token``, ``Access-Token``, ``accessToken`` and
``user[access_token]`` are one name, or end in one.

``mask_text`` looks for everything in any bytes, whatever they are said to be: a log line with a
JSON document in a string in a form is no rarity. It does not parse: bodies are cut, joined late or
wrong, and shall be masked all the same. Rules:

1. Nothing raises. Every search is linear in its subject: names and prefixes are of bounded length,
   repeats are possessive or end at what begins the next.
2. ``stars`` keeps the length, and line ends; ``word`` does not, and stands where no length is told.
3. A false alarm costs a few characters of output, a miss shows a password. Where in doubt, mask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Final, Literal

Mask = Callable[[bytes], bytes]
Place = Literal["header", "anywhere", "parameter"]

REPLACEMENT: Final = "REDACTED"
"""What stands in place of a credential where its length need not be kept."""

# --- what is known ---

ENDINGS: Final = (
    "authorization",
    "password",
    "passwords",
    *("password1", "password2", "password_confirm", "password_confirmation", "password_repeat"),
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "token",
    "api_key",
    "api_keys",
    "secret_key",
    "access_key",
    "private_key",
    "subscription_key",
    "functions_key",
    "auth_key",
    "credential",
    "credentials",
)
"""A name that is one of these, or ends in one, is of a credential wherever it stands."""

NAMES: Final = (
    "auth",
    "bearer",
    "cookie",
    "jwt",
    "otp",
    "pass",
    "pin",
    "pwd",
    "REDISCLI_AUTH",
    "session_id",
    "set-cookie",
    "sid",
    "SSHPASS",
    "totp",
)
"""Names of credentials wherever they stand: header fields, parameters, forms, JSON."""

LAST_WORDS: Final = ("pass", "pwd")
"""A name of several words (``MYSQL_PWD``, ``dbPass``) with one of these at its end is, too."""

PARAMETERS: Final = (
    "assertion",
    "AWSAccessKeyId",
    "client_assertion",
    "code",
    "hmac",
    "JSESSIONID",
    "key",
    "PHPSESSID",
    "SAMLResponse",
    "sig",
    "signature",
    "ticket",
    "X-Amz-Signature",
    "X-Goog-Signature",
)
"""Names of credentials in query strings and forms only: elsewhere they are ordinary words."""

HEADERS: Final = (
    "Authentication-Info",
    "Cookie2",
    "DPoP",
    "Proxy-Authentication-Info",
    "Set-Cookie2",
    "Signature",
    "Stripe-Signature",
    "X-Hub-Signature",
    "X-Hub-Signature-256",
    "X-Slack-Signature",
    "X-WSSE",
)
"""Names of header and trailer fields beyond those that are masked anywhere."""

COOKIES: Final = ("Cookie", "Cookie2", "Set-Cookie", "Set-Cookie2")
"""Fields whose names and attributes are kept, so that one sees which cookies there were."""

SCHEMES: Final = (
    *("ApiKey", "AWS4-HMAC-SHA256", "Basic", "Bearer", "Digest", "DPoP", "GNAP", "Hawk", "HOBA"),
    *("JWT", "Key", "Mutual", "Negotiate", "NTLM", "OAuth", "SCRAM-SHA-1", "SCRAM-SHA-256"),
    *("SharedKey", "Signature", "Token", "vapid"),
)
"""Authentication schemes, which are kept in front of what is masked. Others are masked, too."""

TOKENS: Final = (
    ("Anthropic, OpenAI", "sk-ant-", "sk-proj-"),
    ("DigitalOcean", "dop_v1_"),
    ("GitHub", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ("GitLab", "glpat-"),
    ("Google", "AIza", "ya29."),
    ("Hugging Face", "hf_"),
    ("npm", "npm_"),
    ("PyPI", "pypi-"),
    ("Slack", "xoxa-", "xoxb-", "xoxe-", "xoxp-", "xoxr-", "xoxs-"),
    ("Stripe", "sk_live_", "rk_live_", "sk_test_", "rk_test_"),
)
"""Who issues tokens that are known by how they begin, and those beginnings."""

# --- names ---

_NOT_NAME: Final = re.compile(r"[^a-z0-9]+")
_ESCAPED: Final = re.compile(rb"(?:%|\\{1,7}u00)([0-9A-Fa-f]{2})")  # of URLs, and of JSON


def _plain(name: str) -> str:
    return _NOT_NAME.sub("", name.lower())


_ENDINGS: Final = tuple(map(_plain, ENDINGS))
_LAST_WORD: Final = re.compile(
    f"(?:[^a-zA-Z0-9](?i:{'|'.join(LAST_WORDS)})"
    f"|[a-z0-9](?:{'|'.join(map(str.title, LAST_WORDS))}))[^a-zA-Z0-9]*\\Z"
)
_ANYWHERE: Final = frozenset(map(_plain, NAMES))
_KNOWN: Final = {
    "anywhere": _ANYWHERE,
    "parameter": _ANYWHERE | set(map(_plain, PARAMETERS)),
    "header": _ANYWHERE | set(map(_plain, HEADERS)),
}
_COOKIES: Final = frozenset(map(_plain, COOKIES))


@lru_cache(maxsize=4096)
def names_credential(name: bytes, place: Place) -> bool:
    """Whether what has that name, at that place, is a credential."""
    unescaped = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name)
    told = unescaped.decode("latin-1")
    plain = _plain(told)
    if plain in _KNOWN[place] or plain.endswith(_ENDINGS):
        return True
    return plain.endswith(LAST_WORDS) and _LAST_WORD.search(told) is not None


# --- masks ---

_STARS: Final = bytes(code if code in b"\r\n" else ord("*") for code in range(256))


def stars(value: bytes) -> bytes:
    """As many asterisks as there are bytes; line ends stay."""
    return value.translate(_STARS)


def word(value: bytes) -> bytes:
    """The replacement, unless there is nothing to be replaced."""
    return REPLACEMENT.encode() if value else value


def _masked_number(value: bytes, mask: Mask) -> bytes:
    # A number of JSON becomes a string of the same length, or else 0, so that it stays JSON.
    if mask is not stars:
        return b'"' + mask(value) + b'"'
    return b"0" if len(value) == 1 else b'"' + mask(value[2:]) + b'"'


# --- header fields ---

_SCHEME: Final = re.compile(
    rb"[ \t]*+(?:" + b"|".join(re.escape(s.encode()) for s in SCHEMES) + rb")[ \t]++(?=[^ \t\r\n])",
    re.IGNORECASE,
)
_PAIR: Final = re.compile(rb"([ \t\r\n]*+)([^=;]*+)(=?)([^;]*+)(;?)")
_NO_COOKIE_NAME: Final = re.compile(rb"""[\s"'`\\]""")


def mask_field(name: bytes, value: bytes, mask: Mask) -> bytes | None:
    """The value of a header or trailer field, masked; None if its name is of no credential."""
    if not names_credential(name, "header"):
        return None
    if _plain(name.decode("latin-1")) in _COOKIES:
        return _masked_cookies(value, mask, only_first=name[:3].lower() == b"set")
    scheme = _SCHEME.match(value)
    kept = scheme.end() if scheme else len(value) - len(value.lstrip(b" \t\v"))
    return value[:kept] + mask(value[kept:])


def _masked_cookies(value: bytes, mask: Mask, *, only_first: bool) -> bytes:
    def masked(match: re.Match[bytes]) -> bytes:
        blank, name, equals, text, end = match.groups()
        if only_first and match.start():
            return match[0]
        # without "=" it is a value that has no name (RFC 6265bis, 5.6); and no name has such signs
        named = equals and not _NO_COOKIE_NAME.search(name)
        both = name + equals + mask(text) if named else mask(name + equals + text)
        return bytes(blank + both + end)

    return _PAIR.sub(masked, value)


# Each begins with something that the search can skip to; the very first line is matched apart.
_FIRST_LINE: Final = re.compile(
    rb"([ \t<>]{0,32}+(?:-[ ]{1,4}+){0,4}+)([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}+):([^\r\n]*+)"
)
_LINE: Final = re.compile(rb"\n" + _FIRST_LINE.pattern)
_QUOTED_LINE: Final = re.compile(rb"""(["'`])([A-Za-z0-9_\-]{1,64}+):([^\r\n"'`\\]*+)""")
_ESCAPED_LINE: Final = re.compile(rb"""(\\n)([A-Za-z0-9_\-]{1,64}+):([^\r\n"'`\\]*+)""")
_FOLDED: Final = re.compile(rb"\r?\n([ \t]++)[^\r\n]++")


def _mask_lines(data: bytes, mask: Mask) -> bytes:
    # Header fields where nobody has parsed them: raw bytes, traces, YAML for that matter. Lines
    # below that are indented further belong to the value of a credential. Other lines are looked at
    # one by one: they may have names of their own.
    first = _FIRST_LINE.match(data)
    lines = chain((first,) if first else (), _LINE.finditer(data))
    data = _mask_values(data, lines, mask, folding=True)
    data = _mask_values(data, _QUOTED_LINE.finditer(data), mask)
    if b"\\n" in data:
        data = _mask_values(data, _ESCAPED_LINE.finditer(data), mask)
    return data


def _mask_values(
    data: bytes, lines: Iterable[re.Match[bytes]], mask: Mask, *, folding: bool = False
) -> bytes:
    out, at = [], 0
    for line in lines:
        if line.start() < at or not names_credential(line[2], "header"):
            continue
        start, end = line.span(3)
        while folding and (more := _FOLDED.match(data, end)) and len(more[1]) > len(line[1]):
            end = more.end()
        value = mask_field(line[2], data[start:end], mask)
        if value is not None:
            out += [data[at:start], value]
            at = end
    return b"".join(out) + data[at:] if out else data


# --- parameters ---

_IN_NAMES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.%[]-"
_NAME_LIMIT: Final = 64
_VALUE: Final = re.compile(rb"""([^&\s"'<>#\\]*+)""")
_QUOTED: Final = re.compile(rb"""["']([^"'\r\n]*+)""")
_FORM_VALUE: Final = re.compile(rb"([^&\r\n]*+)")
_SEPARATORS: Final = b"?&;#"
_BETWEEN_WORDS: Final = b" \t\r\n,({[\"'"


def _mask_parameters(data: bytes, mask: Mask, *, form: bool) -> bytes:
    out, at, equals = [], 0, -1
    while (equals := data.find(b"=", equals + 1)) >= 0:
        place = _place_of_name(data, equals, form=form)
        if place is None:
            continue
        if form:
            value = _FORM_VALUE.match(data, equals + 1)
        else:
            value = _QUOTED.match(data, equals + 1) or _VALUE.match(data, equals + 1)
        if value is not None:
            start, end = value.span(1)
            out += [data[at:start], mask(data[start:end])]
            at = end
            equals = max(equals, end - 1)
    return b"".join(out) + data[at:] if out else data


def _place_of_name(data: bytes, end: int, *, form: bool) -> Place | None:
    # Where the credential belongs whose name ends at ``end``; None if that is no such name.
    before = data[max(0, end - _NAME_LIMIT - 6) : end]
    rest = before.rstrip(_IN_NAMES)
    name = before[len(rest) :]
    place: Place = "anywhere"
    if rest.endswith(b"\\") and name.startswith(b"u0026"):
        name = name[5:]  # an ampersand, as JSON for HTML has it
        place = "parameter"
    elif rest:
        if rest[-1] in _SEPARATORS:
            place = "parameter"
        elif rest[-1] not in _BETWEEN_WORDS:
            return None
    elif len(name) < end:
        return None  # longer than names are
    elif form:
        place = "parameter"
    return place if names_credential(name, place) else None


_DISPOSITION: Final = re.compile(
    rb"(?:^|(?<=\n))content-disposition:[ \t]{0,8}+form-data;([^\r\n]{0,512}+)\r?\n"
    rb"(?:[^\r\n]{1,512}+\r?\n){0,8}+\r?\n",
    re.IGNORECASE,
)
_PART_NAME: Final = re.compile(rb'[; \t]name="?([^";\r\n]{1,64})', re.IGNORECASE)


def _mask_parts(data: bytes, mask: Mask) -> bytes:
    # multipart/form-data (RFC 7578): what lies between a part's head and the next boundary
    out, at = [], 0
    for head in _DISPOSITION.finditer(data):
        name = _PART_NAME.search(b" " + head[1])
        if head.end() < at or name is None or not names_credential(name[1], "parameter"):
            continue
        end = data.find(b"\n--", head.end() - 1)
        end = len(data) if end < 0 else max(head.end(), end - (data[end - 1 : end] == b"\r"))
        out += [data[at : head.end()], mask(data[head.end() : end])]
        at = end
    return b"".join(out) + data[at:] if out else data


# --- JSON, also within strings, where its quotes have backslashes before them ---

# In a name anything may stand, also escaped.
_KEY: Final = re.compile(
    rb"""(["'])([^"'\\\r\n]{0,256}+(?:\\{1,7}+u[0-9A-Fa-f]{4}[^"'\\\r\n]{0,256}+){0,32}+)"""
    rb"""(\\{0,7}+)\1\s{0,64}+:\s{0,64}+"""
)
_COLON: Final = re.compile(rb"\s{0,64}+:")
_NUMBER: Final = re.compile(rb"-?[0-9][0-9.eE+\-]{0,62}+")
_NESTED: Final = re.compile(rb"""[\[\]{}"']|-?[0-9][0-9.eE+\-]{0,62}+""")

_Span = tuple[int, int, bool]  # from, to, whether it is a number


def _mask_json(data: bytes, mask: Mask) -> bytes:
    out, at = [], 0
    for start, end, number in _json_values(data):
        value = data[start:end]
        out += [data[at:start], _masked_number(value, mask) if number else mask(value)]
        at = end
    return b"".join(out) + data[at:] if out else data


def _json_values(data: bytes) -> Iterator[_Span]:
    at = 0
    while key := _KEY.search(data, at):
        at = key.end()
        escapes = len(key[3])
        if not names_credential(key[2], "anywhere"):
            continue
        if data[at : at + escapes].count(b"\\") == escapes:
            first = data[at + escapes : at + escapes + 1]
            if first and first in b"\"'":
                start = at + escapes + 1
                end = _string_end(data, start, first, escapes)
                yield start, end, False
                at = end
                continue
        number = _NUMBER.match(data, at)
        if number:
            yield at, number.end(), True
            at = number.end()
        elif data[at : at + 1] in {b"{", b"["}:
            nested = _Nested(data, at, escapes)
            yield from nested.values()
            at = nested.at


class _Nested:
    # All values of an object or array: what is under a credential's name is credentials.

    def __init__(self, data: bytes, at: int, escapes: int) -> None:
        self.at = at
        self._data = data
        self._escapes = escapes

    def values(self) -> Iterator[_Span]:
        depth = 0
        while token := _NESTED.search(self._data, self.at):
            sign = token[0]
            self.at = token.end()
            if sign in {b"{", b"["}:
                depth += 1
            elif sign in {b"}", b"]"}:
                depth -= 1
                if depth <= 0:
                    return
            elif sign in {b'"', b"'"}:
                end = _string_end(self._data, self.at, sign, self._escapes)
                if not _COLON.match(self._data, end + self._escapes + 1):
                    yield self.at, end, False
                self.at = min(len(self._data), end + self._escapes + 1)
            else:
                yield token.start(), token.end(), True
        self.at = len(self._data)


def _string_end(data: bytes, start: int, quote: bytes, escapes: int) -> int:
    # Where the text of a string ends, without its closing quote and the backslashes before that.
    # ``escapes`` is how many backslashes a quote of this level has: 0, 1 in a string, 3 in two.
    at = start
    while (found := data.find(quote, at)) >= 0:
        run = found
        while run > at and data[run - 1] == 0x5C:
            run -= 1
        count = found - run
        if count < escapes:
            return run  # the string around this one is over
        if (count - escapes) // (escapes + 1) % 2 == 0:
            return found - escapes
        at = found + 1
    return len(data)


# --- names and texts in code and configuration: GraphQL, scripts, TOML, INI ---

_ASSIGNED: Final = re.compile(rb"""[:=](?<=[^"'\\][:=])[ \t]{0,8}+(\\{0,7}+)(["'`])""")
_QUOTES: Final = (b'"', b"'", b"`")
_SPACED: Final = re.compile(
    rb"""\n[ \t]{0,32}+([\w.\-]{1,64}+)[ \t]{0,8}+=[ \t]{1,8}+([^\s"'][^\r\n]*+)"""
)


def _mask_assigned(data: bytes, mask: Mask) -> bytes:
    out, at = [], 0
    for sign in _ASSIGNED.finditer(data):
        if sign.start() < at:
            continue
        before = data[max(0, sign.start() - _NAME_LIMIT - 8) : sign.start()].rstrip(b" \t")
        name = before[len(before.rstrip(_IN_NAMES)) :]
        if not names_credential(name, "anywhere") or _plain(name.decode()) in _COOKIES:
            continue  # of cookies the names are kept
        quote, start = sign[1] + sign[2], sign.end()
        if data.startswith(2 * quote, start):  # a text of several lines, as GraphQL and TOML have
            start += 2 * len(quote)
            found = data.find(3 * quote, start)
            end = len(data) if found < 0 else found
        else:
            end = _string_end(data, start, sign[2], len(sign[1]))
        out += [data[at:start], mask(data[start:end])]
        at = end
    return b"".join(out) + data[at:] if out else data


def _mask_last(pattern: re.Pattern[bytes], data: bytes, mask: Mask) -> bytes:
    # what a match ends with, if it begins with the name of a credential
    def masked(match: re.Match[bytes]) -> bytes:
        text = match[match.lastindex or 0]
        if not names_credential(match[1], "anywhere") or text.isspace():
            return match[0]
        return match[0][: -len(text)] + mask(text)

    return pattern.sub(masked, data)


# --- markup: XML, SOAP, forms of HTML; and lists of names with values, as of environments ---

_ELEMENT: Final = re.compile(
    rb"<([A-Za-z_][\w.:\-]{0,63}+)(?:\s[^<>]{0,1024}+)?+(?<!/)>"
    rb"(?:<!\[CDATA\[((?s:.){1,512}?)(?=\]\]>)|([^<]++))"
)
_NAMED: Final = re.compile(
    rb"""[nkNK](?:ame|ey)\\{0,7}+["']?+\s{0,8}+[:=]\s{0,8}+(\\{0,7}+)(["'])([^"'\\\r\n]{1,128}+)\1\2"""
    rb"""\s{0,64}+,?+\s{0,64}+\\{0,7}+["']?+[vV]alue\\{0,7}+["']?+\s{0,8}+[:=]\s{0,8}+\1\2"""
)


def _mask_named(data: bytes, mask: Mask) -> bytes:
    out, at = [], 0
    for pair in _NAMED.finditer(data):
        if pair.start() < at or not names_credential(pair[3], "anywhere"):
            continue
        end = _string_end(data, pair.end(), pair[2], len(pair[1]))
        out += [data[at : pair.end()], mask(data[pair.end() : end])]
        at = end
    return b"".join(out) + data[at:] if out else data


# --- commands of other protocols: POP3, FTP, IRC; SMTP; IMAP ---

_LOGIN: Final = re.compile(
    rb"(\n(?:[A-Za-z0-9.]{1,16}+ )?"
    rb"(?:PASS|AUTH(?:ENTICATE)? (?:PLAIN|XOAUTH2)|LOGIN [^\s]{1,256}+) )"
    rb"([^\r\n]++)"
)
_LOGIN_WORDS: Final = (b"PASS ", b"AUTH ", b"AUTHENTICATE ", b"LOGIN ")


def _mask_login(data: bytes, mask: Mask) -> bytes:
    return _LOGIN.sub(lambda match: match[1] + mask(match[2]), b"\n" + data)[1:]


# --- what is known by its looks ---

_USER: Final = re.compile(rb"""(://[^\s/?#@:"'<>\\]{0,256}+:)([^\s/?#"'<>\\]{1,1024})(?=@)""")
_JWT: Final = re.compile(
    rb"(?:(?<![A-Za-z0-9_\-])|(?<=%20)|(?<=%3[Dd]))"
    rb"eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{2,}+(?:\.[A-Za-z0-9_\-]*+){0,3}+"
)
_BEARER: Final = re.compile(
    rb"(?<![A-Za-z0-9])((?:[Bb]earer|BEARER)(?:[ \t+]|%20){1,4}+)([A-Za-z0-9._~+/\-]{8,}+=*+)"
)
_TOKEN: Final = re.compile(
    rb"(?<![A-Za-z0-9_])((?:"
    + b"|".join(re.escape(start.encode()) for _, *starts in TOKENS for start in starts)
    + rb"))([A-Za-z0-9_.\-]{16,}+)"
)
_TOKEN_STARTS: Final = tuple(start.encode() for _, *starts in TOKENS for start in starts)
_PEM: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY-----")
_BEARER_SURE: Final = 20  # "Bearer authentication" is prose, what has digits or is longer is not


def _mask_pem(data: bytes, mask: Mask) -> bytes:
    out, at = [], 0
    for begin in _PEM.finditer(data):
        if begin.end() < at:
            continue
        end = data.find(b"-----END", begin.end())
        end = len(data) if end < 0 else end
        out += [data[at : begin.end()], mask(data[begin.end() : end])]
        at = end
    return b"".join(out) + data[at:] if out else data


def _mask_looks(data: bytes, mask: Mask) -> bytes:
    if b"://" in data:
        data = _USER.sub(lambda match: match[1] + mask(match[2]), data)
    if b"eyJ" in data:
        data = _JWT.sub(lambda match: mask(match[0]), data)
    if b"earer" in data or b"BEARER" in data:

        def masked(match: re.Match[bytes]) -> bytes:
            text = match[2]
            sure = len(text) >= _BEARER_SURE or any(48 <= code <= 57 for code in text)
            return match[1] + mask(text) if sure else match[0]

        data = _BEARER.sub(masked, data)
    if any(start in data for start in _TOKEN_STARTS):
        data = _TOKEN.sub(lambda match: match[1] + mask(match[2]), data)
    return data


def mask_text(data: bytes, mask: Mask, *, form: bool = False) -> bytes:
    """Every credential that can be recognised in some bytes, masked.

    ``form`` says that they are a query string or a form. Without credentials the very bytes come
    back.
    """
    if b"PRIVATE KEY-----" in data:
        data = _mask_pem(data, mask)
    if b":" in data:
        if b'"' in data or b"'" in data:
            data = _mask_json(data, mask)
        data = _mask_lines(data, mask)
    if b"form-data;" in data:
        data = _mask_parts(data, mask)
    if b"=" in data:
        data = _mask_parameters(data, mask, form=form)
        if b"= " in data or b"=\t" in data:
            data = _mask_last(_SPACED, b"\n" + data, mask)[1:]
    return _mask_looks(_mask_languages(data, mask), mask)


def _mask_languages(data: bytes, mask: Mask) -> bytes:
    if any(quote in data for quote in _QUOTES):
        data = _mask_assigned(data, mask)
        if b"alue" in data:
            data = _mask_named(data, mask)
    if b"</" in data:
        data = _mask_last(_ELEMENT, data, mask)
    if any(login in data for login in _LOGIN_WORDS):
        data = _mask_login(data, mask)
    return data
