# SPDX-License-Identifier: Apache-2.0
"""Pure stages between decoding and output."""
