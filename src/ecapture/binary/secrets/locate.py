# SPDX-License-Identifier: Apache-2.0
"""Where in a file TLS secrets pass by: the order of strategies, and what is proven about each.

1. **Symbol**: the internal log function is named in ``.symtab`` (unstripped builds).
2. **Label**: calls that hand over label strings as second argument lead to it. This needs no names
   and no version, and works on stripped, static and link-time-optimised builds.
3. **Evaluation** of accessors, of the log function and of its calls gives the walks to the client
   random, the session and the secrets that are kept, for connections that are older than we are.

OpenSSL before 1.1.1 has no log function: there ``tls1_generate_master_secret`` and the walks are
the answer. A symbol and the labels that disagree, two functions with equal claims, an address that
is not the start of a function, an import's stub: each is a reason to refuse, never a guess.

The result depends on the file's bytes alone, so it can be remembered (``remembered``); what is
remembered is verified by ``Site.head``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, NoReturn

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets import chains as walks
from ecapture.binary.secrets import nss
from ecapture.binary.secrets.evaluate import Evaluator, Limits, Trace
from ecapture.binary.secrets.functions import Functions, is_stub, likely_start
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import (
    CLIENT_RANDOM,
    EXPORTER,
    KEY_UPDATE,
    LABELS,
    Reference,
    find_labels,
    find_references,
)
from ecapture.binary.secrets.sites import (
    Chain,
    How,
    Library,
    NotLocated,
    Proof,
    SecretSites,
    Site,
)
from ecapture.binary.secrets.votes import Vote, collect_votes

_HEAD: Final = 16
_LOG_NAMES: Final = (
    "ssl_log_secret",
    # BoringSSL is C++: the type of its object and that of a span changed over the years
    "_ZN4bssl14ssl_log_secretEPK6ssl_stPKcNS_4SpanIKhEE",
    "_ZN4bssl14ssl_log_secretEPK6ssl_stPKcNS_4SpanIKhLm18446744073709551615EEE",
    "_ZN4bssl14ssl_log_secretEPKNS_7SSLImplEPKcNS_4SpanIKhLm18446744073709551615EEE",
)
_MASTER_NAME: Final = "tls1_generate_master_secret"
_GNUTLS_NAMES: Final = ("gnutls_session_get_random", "gnutls_session_get_master_secret")
_NSS_NAME: Final = "SSL_ImportFD"
_MACHINES: Final = ("x86_64", "aarch64")
_ENOUGH: Final = 2  # different labels that must agree
_CALLS: Final = 4  # calls of one label that are evaluated
_SECRETS_SPAN: Final = 0x200  # from the server's application secret to the exporter secret
_SHORT: Final = Limits(paths=200, steps=3000)


class _RefusedError(Exception):
    # Ends a search; never leaves this module.
    pass


def locate(elf: ElfFile) -> SecretSites | NotLocated:
    """Find where this file's TLS library can be asked for its secrets.

    The answer is ``NotLocated`` with a reason where the file has no TLS library that we know, or
    where nothing about it is certain.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    try:
        return _Search(elf).run()
    except _RefusedError as refusal:
        return NotLocated(str(refusal))


class _Search:
    # One search: the file, what is known of it so far, and notes for whoever asks why.

    def __init__(self, elf: ElfFile) -> None:
        if elf.machine not in _MACHINES:
            self._refuse(f"code for {elf.machine} is not read")
        self._elf = elf
        self._image = Image(elf)
        self._functions = Functions(self._image)
        self._evaluator = Evaluator(self._image, self._functions)
        self._notes: list[str] = []
        self._updates: list[Reference] = []
        names = (*walks.ACCESSORS, *_LOG_NAMES, _MASTER_NAME, *_GNUTLS_NAMES, _NSS_NAME)
        self._symbols = self._addresses(names)

    def run(self) -> SecretSites:
        texts = find_labels(self._image)
        labels = {label: places for label, places in texts.items() if label in LABELS}
        votes = self._votes(texts)
        library = self._library(labels)
        if not labels:
            return self._without_labels()
        log = self._log(votes, library)
        if log is None:
            self._refuse("has the labels of a key log, but no function that is handed them")
        calls = [vote for vote in votes if vote.target == log.address]
        chains = self._chains(library, log, calls)
        return SecretSites(library, log, None, labels, chains, tuple(self._notes))

    def _refuse(self, reason: str) -> NoReturn:
        raise _RefusedError(reason)

    def _addresses(self, names: tuple[str, ...]) -> dict[str, int]:
        # What is exported wins over a local function of the same name.
        found = {name: symbol.address for name, symbol in self._elf.symtab(names).items()}
        for name in names:
            symbol = self._elf.symbol(name)
            if symbol is not None:
                found[name] = symbol.address
        return found

    def _library(self, labels: dict[str, tuple[int, ...]]) -> Library:
        if _GNUTLS_NAMES[0] in self._symbols:
            return Library.GNUTLS
        if _NSS_NAME in self._symbols:
            return Library.NSS
        # BoringSSL does not log early exporter secrets, OpenSSL does since it has TLS 1.3.
        return Library.OPENSSL if "EARLY_EXPORTER_SECRET" in labels else Library.BORINGSSL

    # The log function

    def _votes(self, texts: dict[str, tuple[int, ...]]) -> list[Vote]:
        if not texts:
            return []
        names = {address: text for text, places in texts.items() for address in places}
        references = find_references(self._image, names)
        self._updates = [found for found in references if names[found.target] == KEY_UPDATE]
        labels = {address: text for address, text in names.items() if text != KEY_UPDATE}
        votes = collect_votes(self._image, self._functions, references, labels)
        return [vote for vote in votes if not is_stub(self._image, vote.target)]

    def _log(self, votes: list[Vote], library: Library) -> Site | None:
        claims: dict[int, set[str]] = defaultdict(set)
        for vote in votes:
            claims[vote.target].add(vote.label)
        # NSS names only one label where it calls; the others come through a variable.
        enough = 1 if library is Library.NSS else _ENOUGH
        found = [address for address, said in claims.items() if len(said) >= enough]
        named = {self._symbols[name] for name in _LOG_NAMES if name in self._symbols}
        if len(named | set(found)) > 1:
            several = ", ".join(f"{address:#x}" for address in sorted(named | set(found)))
            self._refuse(f"several functions could be the one that logs secrets: {several}")
        for address in named:
            return self._site(address, How.SYMBOL, claims[address])
        for address in found:
            return self._site(address, How.LABEL, claims[address])
        return None

    def _site(self, address: int, how: How, said: set[str]) -> Site:
        offset = self._image.offset_of(address)
        if offset is None:
            self._refuse(f"{address:#x} is not code")
        proof = Proof.FRAME_TABLE
        inside = self._functions.range_of(address)
        if self._functions.is_start(address):
            pass
        elif inside is not None or (self._functions.known and len(said) < _ENOUGH):
            self._refuse(f"{address:#x} is not the start of a function")
        elif len(said) >= _ENOUGH:
            proof = Proof.CALL_TARGET
        else:
            self._refuse(f"nothing proves that a function starts at {address:#x}")
        labels = tuple(label for label in LABELS if label in said)
        return Site(address, offset, how, proof, labels, self._image.bytes_at(address, _HEAD))

    # Chains

    def _chains(self, library: Library, log: Site, calls: list[Vote]) -> dict[str, Chain]:
        if library is Library.NSS:
            return self._nss_chains(log)
        if library is Library.GNUTLS:
            return self._gnutls_chains()
        chains = walks.accessor_chains(self._evaluator, self._symbols)
        printed = walks.logged_random(self._evaluator.trace(log.address, _SHORT))
        self._settle_random(chains, printed)
        master = self._handed(calls, CLIENT_RANDOM)
        if master is not None and library is Library.OPENSSL:
            self._agree(chains, "master_key", master[0])
        if library is Library.OPENSSL:
            chains |= walks.implied(chains)
        exporter = self._handed(calls, EXPORTER)
        if exporter is None:
            self._notes.append("no walk to the exporter secret, nor to those beside it")
        elif library is Library.OPENSSL:
            self._add_openssl_secrets(chains, exporter[0])
        else:
            self._add_boringssl_secrets(chains, exporter[0], counted=exporter[1])
        return chains

    def _settle_random(self, chains: dict[str, Chain], printed: list[Chain]) -> None:
        # The accessor is about exactly this random; the log function may print others as well.
        known = chains.get("client_random")
        if known is None and printed:
            chains["client_random"] = printed[0]
        elif known is not None and printed and known not in printed:
            del chains["client_random"]
            shown = ", ".join(map(str, printed))
            self._notes.append(f"client random: accessor says {known}, log function {shown}")
        if "client_random" not in chains:
            self._notes.append("no walk to the client random")

    def _agree(self, chains: dict[str, Chain], name: str, other: Chain) -> None:
        known = chains.setdefault(name, other)
        if known.offsets != other.offsets:
            del chains[name]
            self._notes.append(f"{name}: accessors say {known}, a call says {other}")

    def _handed(self, calls: list[Vote], label: str) -> tuple[Chain, bool] | None:
        sites = []
        for vote in calls:
            if vote.label != label:
                continue
            start = self._start_of(vote.call)
            if start is not None:
                sites.append((start, vote.call))
        return walks.handed_secret(self._evaluator, sites[:_CALLS])

    def _add_openssl_secrets(self, chains: dict[str, Chain], exporter: Chain) -> None:
        if len(exporter.offsets) != 1:
            self._notes.append(f"exporter secret at {exporter}, which is not in the SSL object")
            return
        length = walks.SECRET_LENGTH
        chains["exporter"] = Chain(exporter.offsets, length, How.EVALUATED)
        pair = self._updated()
        if pair is None:
            self._notes.append("no walk to the application secrets")
            return
        client, server = pair
        if not 0 < exporter.offsets[0] - server.offsets[0] <= _SECRETS_SPAN:
            self._notes.append(f"application secrets at {client} are not near the exporter secret")
            return
        chains |= {"client_application": client, "server_application": server}
        chains |= walks.beside(client, walks.OPENSSL_FROM_CLIENT, length)

    def _updated(self) -> tuple[Chain, Chain] | None:
        found = {walks.updated_secrets(trace) for trace in self._update_traces()} - {None}
        return found.pop() if len(found) == 1 else None

    def _update_traces(self) -> list[Trace]:
        # Of the functions that name the label under which traffic keys are updated.
        starts = {self._start_of(found.address) for found in self._updates[:_CALLS]}
        return [self._evaluator.trace(start, _SHORT) for start in starts if start is not None]

    def _start_of(self, address: int) -> int | None:
        # Where to begin reading, not where to plant a probe.
        inside = self._functions.range_of(address)
        return inside[0] if inside is not None else likely_start(self._image, address)

    def _add_boringssl_secrets(
        self, chains: dict[str, Chain], exporter: Chain, *, counted: bool
    ) -> None:
        chains["exporter"] = exporter
        found = walks.beside(exporter, walks.BORINGSSL_FROM_EXPORTER, exporter.length)
        traces = self._update_traces()
        if not counted:
            self._notes.append("the exporter secret is not kept as in the BoringSSL that we know")
        elif not traces:
            self._notes.append("application secrets: by the layout alone, no code was found")
            chains |= found
        elif any(walks.mentions(trace, found.values()) for trace in traces):
            chains |= found
        else:
            self._notes.append("application secrets are not where this layout should have them")

    def _gnutls_chains(self) -> dict[str, Chain]:
        chains = {}
        for name, key, length in (
            (_GNUTLS_NAMES[0], "client_random", walks.RANDOM_LENGTH),
            (_GNUTLS_NAMES[1], "master_key", walks.MASTER_LENGTH),
        ):
            if name in self._symbols:
                trace = self._evaluator.trace(self._symbols[name], _SHORT)
                found = walks.stored_in_argument(trace, 1, length)
                if found is not None:
                    chains[key] = found
                else:
                    self._notes.append(f"{name} does not tell where it finds what it returns")
        return chains

    def _nss_chains(self, log: Site) -> dict[str, Chain]:
        self._notes.append("the log function is handed keys by name: their bytes are in softoken")
        found = nss.client_random(self._image, self._functions, self._evaluator)
        printed = walks.logged_random(self._evaluator.trace(log.address, _SHORT))
        if found is None and len(printed) == 1:
            found = printed[0]  # built with a key log
        if found is None:
            self._notes.append("no walk to the client random")
            return {}
        return {"client_random": found}

    # OpenSSL before 1.1.1

    def _without_labels(self) -> SecretSites:
        chains = walks.accessor_chains(self._evaluator, self._symbols)
        address = self._symbols.get(_MASTER_NAME)
        master = None
        if address is not None:
            trace = self._evaluator.trace(address, _SHORT)
            for name, found in walks.from_master_function(trace, chains.get("session")).items():
                chains.setdefault(name, found)
            try:
                master = self._site(address, How.SYMBOL, set())
            except _RefusedError as problem:
                self._notes.append(str(problem))
        if not {"client_random", "master_key"} <= set(chains):
            self._refuse("has no TLS library in it that we know")
        return SecretSites(Library.OPENSSL, None, master, {}, chains, tuple(self._notes))
