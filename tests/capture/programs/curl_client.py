# SPDX-License-Identifier: Apache-2.0
"""Fetches an address with any build of libcurl: ``curl_client.py LIBRARY URL``.

The content goes to standard output. The certificate is not checked; the version of HTTP is what
the server chooses.
"""

from __future__ import annotations

import ctypes
import sys

# CURLOPT_URL, CURLOPT_SSL_VERIFYPEER, CURLOPT_SSL_VERIFYHOST (include/curl/curl.h)
URL, VERIFY_PEER, VERIFY_HOST = 10002, 64, 81

curl = ctypes.CDLL(sys.argv[1])
curl.curl_easy_init.restype = ctypes.c_void_p
easy = ctypes.c_void_p(curl.curl_easy_init())
assert curl.curl_easy_setopt(easy, URL, ctypes.c_char_p(sys.argv[2].encode())) == 0
for option in (VERIFY_PEER, VERIFY_HOST):
    assert curl.curl_easy_setopt(easy, option, ctypes.c_long(0)) == 0
sys.exit(curl.curl_easy_perform(easy))
