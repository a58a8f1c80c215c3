# SPDX-License-Identifier: Apache-2.0
"""Parsers without I/O: bytes in, messages out. They know no clock and raise ProtocolError only."""
