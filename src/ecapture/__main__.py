# SPDX-License-Identifier: Apache-2.0
"""``python -m ecapture`` is the command ``ecapture``."""

from ecapture.cli.main import main

if __name__ == "__main__":
    main()
