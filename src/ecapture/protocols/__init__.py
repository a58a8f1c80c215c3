# SPDX-License-Identifier: Apache-2.0
"""Parsers that do no I/O: bytes in, messages out. They know no clock and fail with ProtocolError only."""
