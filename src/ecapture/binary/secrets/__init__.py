# SPDX-License-Identifier: Apache-2.0
"""Finds where a TLS library's secrets pass by, by reading its code: no table of versions.

``locate`` is the entry; ``sites`` has what it answers. Below them: ``labels`` and ``votes`` find
the log function, ``evaluate`` and ``chains`` the walks to fields, ``functions`` proves where
functions start, ``image`` shows a file by address, ``x86`` and ``aarch64`` decode instructions into
the few ``operations`` that matter. Nothing of the file is executed, and nothing but the standard
library is needed.
"""
