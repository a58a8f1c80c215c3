# SPDX-License-Identifier: Apache-2.0
"""``ecapture replay``: a recording through any output."""

from __future__ import annotations

from typing import Any

import click

from ecapture.cli import contradictions
from ecapture.cli.choices import make_outputs, make_stages, only_packets
from ecapture.cli.console import say, set_up_logging
from ecapture.cli.options import output_options
from ecapture.errors import ECaptureError, UsageError
from ecapture.outputs import STDOUT
from ecapture.session import Replay, run


@click.command()
@click.argument("recording", metavar="FILE")
@output_options
@click.option("-d", "--debug", is_flag=True, help="Tell each step.")
@click.pass_context
def replay(context: click.Context, /, recording: str, **given: Any) -> None:
    """Show what `ecapture tls -m record -w FILE` wrote, as the live run did. Needs no root.

    FILE may be - for standard input.
    """
    set_up_logging(debug=given["debug"], path=None)
    if only_packets(given):
        raise UsageError(
            option="-m",
            problem="a recording has no packets",
            hint="its keys are had with -m keylog; packets are captured live",
        )
    contradictions.check(given | {"recording": recording})
    with Replay("/dev/stdin" if recording == STDOUT else recording) as source:
        stages = make_stages(given, source.container_of, source.session_of)
        outputs = make_outputs(given, source.container_of, source.session_of)
        try:
            summary = run(source, outputs, stages)
        except ECaptureError as error:
            say(str(error.fields["summary"]))
            if error.exit_code == 0:
                context.exit(0)
            raise
    say(str(summary))
