# SPDX-License-Identifier: Apache-2.0
"""Makes the modules of this directory importable, which are scripts' modules and no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
