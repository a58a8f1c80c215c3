# SPDX-License-Identifier: Apache-2.0
"""Lets the tests here import what they share (``bpf_object``)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
