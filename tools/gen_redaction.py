# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/redaction.md from the tables of ``ecapture.pipeline``.

python tools/gen_redaction.py            writes the page
python tools/gen_redaction.py --check    fails if the page is not what would be written
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from ecapture.pipeline import command_mask, credentials

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "redaction.md"


def page() -> str:
    """The whole page."""
    issuers = "\n".join(
        f"| {issuer} | {', '.join(f'`{start}…`' for start in starts)} |"
        for issuer, *starts in credentials.TOKENS
    )
    options = "\n".join(
        _item(f"`{option}` of", programs) for option, programs in command_mask.OPTIONS.items()
    )
    users = "\n".join(
        _item(f"`{program}`:", names) for program, names in command_mask.USERS.items()
    )
    last_words = " or ".join(f"`{last}`" for last in credentials.LAST_WORDS)
    last = " and ".join(
        f"`{f'{program} {option}'.strip()}`" for program, option in command_mask.LAST.items()
    )
    readers = tuple(
        f"{program} {' or '.join(names)}".strip() for program, names in command_mask.READERS.items()
    )
    return f"""\
# What `--redact` replaces

<!-- Made by tools/gen_redaction.py. Change the tables in pipeline/credentials.py instead. -->

With `--redact`, credentials are replaced in everything that is shown or written as text, JSON or
HAR: by `{credentials.REPLACEMENT}` in start lines, header fields and trailers; in content and in
raw bytes by as many asterisks as they had bytes, so that lengths stay true.

Recordings (`-m record`) hold what was captured, unchanged: they are redacted when they are shown.

## Names

Names are compared without case and without anything but letters and digits: `access_token`,
`Access-Token`, `accessToken` and `user%5Baccess_token%5D` are the same, or end in the same.

In header fields, query strings and fragments, forms (URL-encoded and multipart), JSON at any depth,
elements and attributes of XML and HTML, arguments of GraphQL, lists of names with their values
(`{{"name": "DB_PASSWORD", "value": "…"}}`), assignments (`name = "value"`), and lines of the form
`name: value` or `name=value`, a name is taken for that of a credential if it ends in

{_listed(credentials.ENDINGS)}

or if it is

{_listed(credentials.NAMES)}

or if {last_words} is the last of several words (`DB_PASS`, `dbPwd`).

In query strings and forms, these, too:

{_listed(credentials.PARAMETERS)}

As header or trailer fields, these, too:

{_listed(credentials.HEADERS)}

Of cookies ({", ".join(f"`{name}`" for name in credentials.COOKIES)}) only the values
are replaced; names and attributes are kept. Other fields keep the authentication scheme in front,
if it is one of

{_listed(credentials.SCHEMES)}

In JSON, everything within an object or array of such a name is replaced, except names, `true`,
`false` and `null`. JSON inside a JSON string is read as well. Numbers become strings of asterisks
(a single digit becomes 0), so that the document stays valid.

## Looks

Wherever they stand, in any field and any content:

- the password in `scheme://user:password@host`
- what follows the word `Bearer`, if it has digits or is long
- JSON Web Tokens (`eyJ….….…`)
- private keys in PEM form
- what follows `PASS`, `LOGIN name`, `AUTH PLAIN` and `AUTHENTICATE PLAIN` (also `XOAUTH2`) at the
  beginning of a line, as POP3, FTP, IMAP and SMTP have it
- tokens that begin as those of

| issuer | beginning |
| --- | --- |
{issuers}

## Command lines

In commands of shells all of that is replaced by `{credentials.REPLACEMENT}`, a value up to the end
of its word; the word behind an option that is named like a credential (`--password X`); and values
of these options, in the same word or the next:

{options}
{_item("`-p`, behind the word `login`, of", command_mask.LOGINS)}

What follows the user in values of

{users}

The last word of {last}; the word behind the name of a credential, of
{_listed(command_mask.SETTERS)}.

What `echo` and `printf` print into these, and what here-strings and here-documents give them:

{_listed(readers)}

A program counts wherever its name stands in a command (`docker exec db mysql -pX`), and commands
within quotes and backquotes are read as well. Of statements of SQL in a command only passwords are
replaced (`PASSWORD 'X'`, `IDENTIFIED BY 'X'`).

## Statements to databases

Every literal and parameter becomes a question mark, and so does what error messages quote; comments
stay as they are. In MySQL a backslash is taken for an escape and double quotes for those of a
string, in PostgreSQL neither is: sessions that changed `sql_mode` or
`standard_conforming_strings` may have literals that are not recognised.

## What it does not find

- Credentials in content that could not be decoded: an unknown coding, ciphertext, content beyond
  the limit that is kept.
- With `--raw`, whatever cannot be recognised within one event: a credential that is split over two
  calls of the program, and header fields of HTTP/2, which are compressed.
- Credentials in other character sets than those that contain ASCII (UTF-16), or in base64 beyond
  the fields named above.
- Credentials that are told apart by their place alone: a second answer after `AUTH LOGIN`, the
  words of Redis, the variables of GraphQL where they have names of their own, plain lists.
- Images, audio, video and fonts, which are not searched.
- Names that are not in these lists. Look at what you are about to pass on.
"""


def _item(lead: str, names: tuple[str, ...]) -> str:
    listed = _listed(names).replace("\n", " ")
    return textwrap.fill(f"- {lead} {listed}", 100, subsequent_indent="  ", break_on_hyphens=False)


def _listed(names: tuple[str, ...]) -> str:
    lines, line = [], ""
    for index, name in enumerate(names):
        piece = f"`{name}`" + ("" if index == len(names) - 1 else ",")
        if line and len(line) + 1 + len(piece) > 100:
            lines.append(line)
            line = ""
        line = f"{line} {piece}" if line else piece
    return "\n".join([*lines, line])


def main() -> int:
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != page():
            print(f"{PAGE} is not what the tables say: run tools/gen_redaction.py")
            return 1
        return 0
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
