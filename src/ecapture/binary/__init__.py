# SPDX-License-Identifier: Apache-2.0
"""Facts about files and processes, read-only."""
