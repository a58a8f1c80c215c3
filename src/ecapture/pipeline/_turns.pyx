# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""The turns of PostgreSQL's sessions that are as most are, told of in one go. Documented in _turns.pyi.

Every offset is compared with the end of a run before it is read from: what a server was sent is untrusted. Whatever is
not exactly as expected is none of this module's business and goes the long way; no state is changed before that is
decided.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_Decode, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from ecapture.events import ProcessExit, Served, Statement
from ecapture.pipeline.postgres_parts import UNKNOWN, Prepared
from ecapture.protocols.postgres import rows_of
from ecapture.protocols.postgres_values import parameter_text

cdef enum:
    HEADER = 5
    NULL_VALUE = 0xFFFFFFFF
    TAGS = 1024  # remembered: there are few, but for their counts
    RUNS = 8  # of an answer that are held

cdef enum Step:
    PARSED
    BOUND
    COMPLETE
    READY
    DONE

cdef object _READ = "read"
cdef tuple _FORGETTING = ("DEALLOCATE ALL", "DISCARD ALL")
cdef dict _tags = {}


cdef inline uint32_t u16(const uint8_t *at) noexcept:
    return (<uint32_t>at[0] << 8) | at[1]


cdef inline uint32_t u32(const uint8_t *at) noexcept:
    return (u16(at) << 16) | u16(at + 2)


cdef inline Py_ssize_t text_size(const uint8_t *at, const uint8_t *end) noexcept:
    """Bytes up to a zero byte; -1: there is none."""
    cdef const void *found = memchr(at, 0, end - at) if end > at else NULL
    return <const uint8_t *>found - at if found else -1


cdef inline const uint8_t *message(const uint8_t *at, const uint8_t *end, uint8_t kind) noexcept:
    """Where the message of this kind ends that begins here; NULL: it does not, or is not whole."""
    cdef uint32_t length
    if end - at < HEADER or at[0] != kind:
        return NULL
    length = u32(at + 1)
    if length < 4 or length > end - at - 1:
        return NULL
    return at + 1 + length


cdef tuple tag_of(const uint8_t *at, Py_ssize_t size):
    # The tag of a CommandComplete and the rows it tells of.
    cdef bytes raw = (<const char *>at)[:size]
    known = _tags.get(raw)
    if known is None:
        tag = raw.decode("ascii", "backslashreplace")
        if len(_tags) >= TAGS:
            _tags.clear()
        known = _tags[raw] = tag, rows_of(tag), not tag or tag in _FORGETTING
    return known


cdef class Turn:
    cdef readonly object session, session_ns
    cdef bint _ready
    cdef int64_t _read_at, _write_at  # up to where the session knows what was said
    cdef int64_t _written  # the same, and what is held
    # of the session, while it is ready
    cdef object _pid, _uid, _comm, _since_ns, _user, _database, _client, _application, _no_identity, _codec
    cdef dict _statements
    cdef bytes _encoded
    cdef const char *_codec_name
    cdef bint _is_utf8
    cdef Py_ssize_t _limit
    # what was asked
    cdef object _request  # None: nothing
    cdef list _answers
    cdef int _step
    cdef object _kind, _name, _text, _length, _missing, _parameters, _prepared, _parsed
    cdef object _portal  # what Bind made last, if the session was not told yet
    cdef tuple _tag
    cdef object _time_ns
    # seen before: what repeats is not made again
    cdef bytes _raw_name, _raw_text
    cdef object _last_name, _last_parsed

    def __init__(self, session, session_ns):
        self.session, self.session_ns = session, session_ns
        self._ready = False
        self._request = self._portal = None
        self._answers = []
        self._raw_name, self._last_name = b"", ""
        self._raw_text = self._last_parsed = None

    def rest(self):
        """See the stub."""
        found = self.session.at_rest()
        if found is None:
            return
        identity, self._read_at, self._write_at, self._statements = found
        (self._pid, self._uid, self._comm, self._since_ns, self._user, self._database, self._client,
         self._application, self._no_identity, codec, self._limit) = identity
        if codec != self._codec:
            self._codec, self._encoded = codec, codec.encode()
            self._codec_name = PyBytes_AS_STRING(self._encoded)
            self._is_utf8 = codec == "utf-8"
            self._raw_name, self._last_name = b"", ""
        self._raw_text = None  # the types of what it made may have become known
        self._written = self._write_at
        self._ready = True

    def settle(self, list out not None):
        """See the stub."""
        if not self._ready:
            return
        self._ready = False
        request, self._request = self._request, None
        answers, self._answers = self._answers, []
        portal, self._portal = self._portal, None
        self.session.resume(self._read_at, self._write_at, portal)
        if request is not None:
            self.session.feed(request, out)
        for answer in answers:
            self.session.feed(answer, out)

    cdef bint take(self, event, list out) except -1:
        # Whether this is all there is to do about this run.
        cdef bytes payload
        cdef int64_t at
        if not self._ready or event.session_ns != self.session_ns:
            return False
        if not event.boundary or event.cut or event.missing:
            return False
        payload = event.payload
        at = event.kept_offset
        if event.direction is _READ or event.direction == _READ:
            if self._request is not None or at != self._read_at or not self._asked(payload):
                return False
            self._request = event
            return True
        if self._request is None or at != self._written or not self._answered(event, payload):
            return False
        self._written += PyBytes_GET_SIZE(payload)
        if self._step == DONE:
            self._tell(out)
        else:
            self._answers.append(event)
            if len(self._answers) > RUNS:
                self.settle(out)
        return True

    # --- what is asked ---

    cdef bint _asked(self, bytes payload) except -1:
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(payload)
        cdef const uint8_t *end = at + PyBytes_GET_SIZE(payload)
        cdef const uint8_t *next
        if end == at:
            return False
        self._parsed = None
        if at[0] == c"Q":
            return self._query(at, end)
        self._step = BOUND
        if at[0] == c"P":
            next = message(at, end, c"P")
            if next == NULL or not self._parse(at + HEADER, next):
                return False
            self._step = PARSED
            at = next
        next = message(at, end, c"B")
        if next == NULL or not self._bind(at + HEADER, next):
            return False
        at = next
        if at < end and at[0] == c"D":
            next = message(at, end, c"D")
            if next != at + HEADER + 2 or at[HEADER] != c"P" or at[HEADER + 1]:
                return False
            at = next
        next = message(at, end, c"E")
        if next != at + HEADER + 5 or at[HEADER]:
            return False
        return message(next, end, c"S") == end and end - next == HEADER

    cdef bint _query(self, const uint8_t *at, const uint8_t *end) except -1:
        cdef Py_ssize_t size = end - at - HEADER - 1
        if message(at, end, c"Q") != end or size < 0 or size > self._limit:
            return False
        if text_size(at + HEADER, end) != size:
            return False
        text = self._decoded(at + HEADER, size)
        if text is None:
            return False
        self._kind, self._name, self._text, self._length, self._missing = "query", "", text, size, ""
        self._parameters = ()
        self._step = COMPLETE
        return True

    cdef bint _parse(self, const uint8_t *at, const uint8_t *end) except -1:
        cdef Py_ssize_t size
        cdef uint32_t count, i
        if at >= end or at[0]:
            return False
        at += 1
        size = text_size(at, end)
        if size < 0 or size > self._limit or end - at - size < 3:
            return False
        count = u16(at + size + 1)
        if end - at - size - 3 != 4 * count:
            return False
        if self._raw_text is not None and PyBytes_GET_SIZE(self._raw_text) == end - at and not memcmp(
            PyBytes_AS_STRING(self._raw_text), at, end - at
        ):
            self._parsed = self._last_parsed
            return True
        text = self._decoded(at, size)
        if text is None:
            return False
        types = tuple([u32(at + size + 3 + 4 * i) for i in range(count)]) if count else ()
        self._parsed = self._last_parsed = Prepared(text, size, "", types)
        self._raw_text = (<const char *>at)[:end - at]
        return True

    cdef bint _bind(self, const uint8_t *at, const uint8_t *end) except -1:
        cdef Py_ssize_t size
        if at >= end or at[0]:
            return False
        at += 1
        size = text_size(at, end)
        if size < 0 or (size and self._parsed is not None):
            return False
        if size != PyBytes_GET_SIZE(self._raw_name) or memcmp(PyBytes_AS_STRING(self._raw_name), at, size):
            self._raw_name = (<const char *>at)[:size]
            self._last_name = self._replaced(at, size)
        prepared = self._parsed
        if prepared is None:
            prepared = self._statements.get(self._last_name, UNKNOWN) if size else self.session.unnamed
        self._prepared = prepared
        self._kind, self._name = "execute", self._last_name
        self._text, self._length, self._missing = prepared.text, prepared.length, prepared.missing
        return self._values(at + size + 1, end, prepared)

    cdef bint _values(self, const uint8_t *at, const uint8_t *end, prepared) except -1:
        cdef uint32_t formats, count, i, length, form
        cdef const uint8_t *format_at
        if end - at < 2:
            return False
        formats = u16(at)
        format_at = at + 2
        if end - format_at < 2 * <Py_ssize_t>formats + 2:
            return False
        at = format_at + 2 * formats
        count = u16(at)
        at += 2
        if not count:
            self._parameters = ()
            return True
        if formats > 1 and formats != count:
            return False
        if end - at < 4 * <Py_ssize_t>count:
            return False
        types = None
        values = []
        for i in range(count):
            if end - at < 4:
                return False
            length = u32(at)
            at += 4
            if length == NULL_VALUE:
                values.append(None)
                continue
            if length > end - at:
                return False
            form = 0 if not formats else u16(format_at) if formats == 1 else u16(format_at + 2 * i)
            if form == 1:
                if types is None:
                    types = prepared.types
                raw = (<const char *>at)[:length]
                oid = types[i] if i < <uint32_t>len(types) else 0
                values.append(parameter_text(raw, binary=True, oid=oid, codec=self._codec))
            else:
                values.append(self._replaced(at, length))
            at += length
        self._parameters = tuple(values)
        return True

    cdef _decoded(self, const uint8_t *at, Py_ssize_t size):
        # None: it is no text in the client's encoding
        try:
            if self._is_utf8:
                return PyUnicode_DecodeUTF8(<const char *>at, size, "strict")
            return PyUnicode_Decode(<char *>at, size, <char *>self._codec_name, "strict")
        except UnicodeDecodeError:
            return None

    cdef _replaced(self, const uint8_t *at, Py_ssize_t size):
        if not size:
            return ""
        if self._is_utf8:
            return PyUnicode_DecodeUTF8(<const char *>at, size, "backslashreplace")
        return PyUnicode_Decode(<char *>at, size, <char *>self._codec_name, "backslashreplace")

    # --- what is answered ---

    cdef bint _answered(self, event, bytes payload) except -1:
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(payload)
        cdef const uint8_t *end = at + PyBytes_GET_SIZE(payload)
        cdef const uint8_t *next
        cdef Py_ssize_t size
        cdef uint8_t kind
        cdef int step = self._step
        cdef tuple tag = self._tag
        while at < end:
            kind = at[0]
            next = message(at, end, kind) if kind else NULL
            if next == NULL:
                return False
            if kind == c"1" and step == PARSED:
                step = BOUND
            elif kind == c"2" and step == BOUND:
                step = COMPLETE
            elif kind == c"C" and step == COMPLETE:
                size = text_size(at + HEADER, next)
                tag = tag_of(at + HEADER, size if size >= 0 else next - at - HEADER)
                if tag[2]:
                    return False
                step = READY
            elif kind == c"Z" and step == READY and next == end:
                step = DONE
            elif kind in b"123CEISVZst":
                return False
            at = next
        if step != self._step and step >= READY and self._step < READY:
            self._time_ns = event.time_ns
        self._tag, self._step = tag, step
        return True

    cdef _tell(self, list out):
        cdef tuple tag = self._tag
        cdef object time_ns = self._time_ns, started_ns = self._request.time_ns
        took = time_ns - started_ns
        out.append(
            Statement(
                time_ns, started_ns, self._pid, self._pid, self._uid, self._comm, "postgresql", self._kind, self._pid,
                self._since_ns, self._user, self._database, self._client, self._application, self._no_identity,
                self._name, self._text, self._length, self._missing, self._parameters, took if took > 0 else 0, "ok",
                tag[0], tag[1], "", "", (),
            )
        )
        if self._kind == "execute":
            if self._parsed is not None:
                self.session.unnamed = self._parsed
            self._portal = (self._name, self._prepared, self._parameters)
        self._read_at += PyBytes_GET_SIZE(<bytes>self._request.payload)
        self._write_at = self._written
        self._request = None
        if self._answers:
            self._answers = []


def tell(dict turns not None, list events not None, list out not None, slowly, ended):
    """See the stub."""
    cdef object previous = None, time_ns = 0
    for event in events:
        kind = type(event)
        if kind is Served:
            turn = turns.get(event.pid)
            if turn is not None and (<Turn>turn).take(event, out):
                if turn is not previous:
                    del turns[event.pid]
                    turns[event.pid] = turn
            else:
                slowly(event, out)
            previous = turn
            time_ns = event.time_ns
        else:
            if kind is ProcessExit:
                ended(event, out)
                previous = None
            out.append(event)
    return time_ns
