# SPDX-License-Identifier: Apache-2.0
"""An HTTP client over some libcurl: ``libcurl_client.py FILE``, told what to do line by line.

``get URL VERSION`` fetches and answers with the status; VERSION is of TLS, as libcurl counts them
(6 is 1.2, 7 is 1.3), or ``h3``. Numbers of options are those of include/curl/curl.h.
"""

from __future__ import annotations

import ctypes
import os
import sys

URL, VERSION, VERIFY_PEER, VERIFY_HOST, HTTP_VERSION = 10002, 32, 64, 81, 84
WRITE_DATA, RESPONSE_CODE, HTTP_3_ONLY = 10001, 0x200000 + 2, 31

library = ctypes.CDLL(sys.argv[1])
library.curl_easy_init.restype = ctypes.c_void_p
library.curl_easy_strerror.restype = ctypes.c_char_p
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
nowhere = ctypes.c_void_p(libc.fopen(os.devnull.encode(), b"w"))


def get(url: str, version: str) -> str:
    easy = ctypes.c_void_p(library.curl_easy_init())
    options = {VERIFY_PEER: 0, VERIFY_HOST: 0}
    if version == "h3":
        options[HTTP_VERSION] = HTTP_3_ONLY
    else:
        options[VERSION] = int(version) | int(version) << 16
    assert library.curl_easy_setopt(easy, URL, url.encode()) == 0
    assert library.curl_easy_setopt(easy, WRITE_DATA, nowhere) == 0
    for option, value in options.items():
        if library.curl_easy_setopt(easy, option, ctypes.c_long(value)):
            return f"option {option} refused"
    failed = library.curl_easy_perform(easy)
    status = ctypes.c_long()
    library.curl_easy_getinfo(easy, RESPONSE_CODE, ctypes.byref(status))
    library.curl_easy_cleanup(easy)
    return library.curl_easy_strerror(failed).decode() if failed else str(status.value)


print("ready", flush=True)
for line in sys.stdin:
    _command, *words = line.split()
    print(get(*words), flush=True)
