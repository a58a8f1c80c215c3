# SPDX-License-Identifier: Apache-2.0
"""The plaintext of TLS connections on a Linux host, by eBPF."""
