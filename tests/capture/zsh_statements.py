# SPDX-License-Identifier: Apache-2.0
"""Statements of zsh, one of each kind, and what zsh itself prints of them."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """\
x=1  # a remark
double() { return $(($1 * 2)) }
double 4
for word in a b; do
    true $word
done
echo x | cat >/dev/null
. ./part.zsh
cat <<X >/dev/null
kept $x
X
(exit 5)
exit 7
"""
RAN = [
    ("x=1", 0, "script"),
    ("double () {\n\treturn $(($1 * 2))\n}", 0, "script"),
    ("double 4", 8, "script"),
    ("for word in a b\ndo\n\ttrue $word\ndone", 0, "script"),
    ("echo x | cat > /dev/null", 0, "script"),
    ("false sourced", 1, "sourced"),
    (". ./part.zsh", 1, "script"),
    ("cat <<X > /dev/null\nkept $x\nX", 0, "script"),
    ("(\n\texit 5\n)", 5, "script"),
    ("exit 7", 7, "script"),
]

STATEMENTS = [
    "x=1 y=\"a b $HOME\" z=(a 'b c' $x) w+=more",
    "z+=(d) true",
    "echo one two 'three four' \"five $x\" \\$six $'s\\n' ${x:-d} `pwd` $(pwd) $((x + 1))",
    "echo ä€😀ã {1..3} [a-c]* ~ ~+ =(true) *.none(N) ab ',-!~^'",
    "true && false || ! true",
    "! false",
    "true | cat | cat |& cat",
    "true > out >> out 2>&1 < out 2> err >| out <> out >&2 <&0 2>&-",
    "cat <<< 'a here string'",
    "cat <<END <<'OTHER' && true\na $x\nEND\nb $x\nOTHER",
    "exec {fd}< out",
    "cat <(true) > >(cat)",
    "if true; then true one; true two; elif false; then :; else false; fi",
    "if [[ -f out && ( $x == 1 || ! $x -gt 3 ) && a != b* && 1 -lt 2 ]]; then; fi > out",
    "[[ a =~ b || a < b || -n $x || out -nt err ]]",
    "case $x in (a|b) echo 1;; 1) true;& *) true;| c*) ;; esac",
    "case $x in esac",
    "while false; do :; done 2> err",
    "until true; do :; done",
    "repeat 2 true",
    "for i in 1 2; do true $i; done",
    "for i j in 1 2; do true $i; done",
    "for ((i=0; i<2; i++)) do true $i; done",
    "for i; do :; done",
    "select v in a b; do break; done < /dev/null",
    "( true sub; ( exit 3 ) )",
    "{ true; false } always { true }",
    "{ true group }",
    "time true",
    "() { true $1 } arg ument",
    "() { }",
    "named() { local i=1 j; typeset -i k=2; export L=3 M; true }",
    "function a b { true; () { nested 'string of its own' } }",
    "function -T traced { true }",
    "typeset -A map=(a 1 b 2)",
    "true & wait",
    "true &|",
    "((x++))",
    "coproc true",
    "noglob true *",
    "true a long string that does not fit into one word; true a long string of the same kind",
]


def write_statements(folder: Path) -> None:
    """Two scripts: ``all.zsh`` has the statements, ``printed.zsh`` prints what they are in zsh."""
    (folder / "all.zsh").write_text("".join(f"{statement}\n" for statement in STATEMENTS))
    lines = ["zmodload zsh/parameter"]
    lines += [f"f{number}() {{\n{text}\n}}" for number, text in enumerate(STATEMENTS)]
    lines += [f'print -rN -- "$functions[f{number}]"' for number in range(len(STATEMENTS))]
    (folder / "printed.zsh").write_text("\n".join(lines) + "\n")


def as_zsh_prints(output: bytes) -> list[str]:
    """The texts of the statements in what ``printed.zsh`` writes.

    A body is printed one step further to the right; zsh leaves blanks at ends of lines, and forgets
    to move the first line inside "select" to the right.
    """
    bodies = [
        body.replace("do\n\tbreak", "do\n\t\tbreak") for body in output.decode().split("\0")[:-1]
    ]
    return [
        "\n".join(line.removeprefix("\t").rstrip(" ") for line in b.split("\n")) for b in bodies
    ]
