# SPDX-License-Identifier: Apache-2.0
"""Tests below here are collected in a guest only: on the host they would mean nothing."""

import os

collect_ignore_glob = [] if os.environ.get("ECAPTURE_IN_GUEST") == "1" else ["*.py"]
