# SPDX-License-Identifier: Apache-2.0
"""Finds the functions that read and write plaintext where nothing names them, by reading code.

``locate`` is the entry for files that were linked statically and stripped, ``inner`` for libraries
whose exported functions share an internal one. Below them: ``reports`` finds the functions that
report errors from a given source file, ``entries`` proves where they start, ``openssl`` and
``boringssl`` recognise them by what they report and by what they do with their arguments. Two
independent signs must agree. Nothing of a file is executed.
"""
