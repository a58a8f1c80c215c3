# SPDX-License-Identifier: Apache-2.0
"""``python -m ecapture`` is the command ``ecapture``.

Until the command line is loaded, Ctrl-C ends the program without a word: a traceback out of the
middle of an import helps nobody.
"""

import signal

_interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _interruptible:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ecapture.cli.main import main as _main  # noqa: E402 - behind the signal


def main() -> None:
    """The entry point of the command. Exits with the code that the error class has."""
    if _interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _main()


if __name__ == "__main__":
    main()
