"""What a registry's refusal means, by ctr's words on 1.0.3 to 2.1.9, and as an error. Pure."""

from __future__ import annotations

import re

from ctr_ferry import shell
from ctr_ferry.ctr.failures import daemon_trouble
from ctr_ferry.errors import (
    HostError,
    RegistryBrokenOff,
    RegistryDenied,
    RegistryError,
    RegistryFailed,
    RegistryScheme,
    RegistryTimeout,
    RegistryTls,
    RegistryUnauthorized,
    RegistryUnreachable,
    RegistryUnresolved,
    RepositoryNotFound,
)
from ctr_ferry.oci.registry import REMEDIES, Registry, Seen

# In this order: a text that fits several means the first. URLs are in these texts, with ports and digests.
_WORDS = (
    (Seen.UNRESOLVED, r"dial tcp: lookup |no such host|server misbehaving"),
    (Seen.REFUSED, r"connect: connection refused"),
    (Seen.NO_ANSWER, r"no route to host|network is unreachable|i/o timeout|deadline exceeded|handshake timeout"),
    (Seen.NO_ANSWER, r"Client\.Timeout|connect: connection timed out"),
    (Seen.EXPIRED, r"x509: certificate has expired or is not yet valid"),
    (Seen.WRONG_NAME, r"x509: (?:certificate is valid for|cannot validate certificate for|certificate is not valid)"),
    (Seen.WRONG_NAME, r"x509: certificate relies on legacy Common Name"),
    (Seen.UNKNOWN_CA, r"x509: certificate signed by unknown authority"),
    (Seen.TLS_FAILED, r"x509: |tls: "),
    (Seen.NO_TLS, r"server gave HTTP response to HTTPS client"),
    (Seen.DENIED, r"insufficient_scope|\b403 Forbidden|denied: requested access"),
    (Seen.UNAUTHORIZED, r"\b401 Unauthorized|no basic auth credentials|authorization failed"),
    (Seen.FAILED, r"(?:status|response)[^\"\n]{0,1000}: (?:5\d\d|429)\b|\b(?:5\d\d|429) [A-Z][a-z]+|toomanyrequests"),
    (Seen.FAILED, r"quota [^\"\n]{0,1000}exceeded|exceed\w{0,8} [^\"\n]{0,1000}(?:quota|upper limit)"),
    # docker-registry rewrites its links in place: of several hosts that push the same blobs at once, one may see none.
    (Seen.FAILED, r'failed commit on ref "[^"]{0,1000}": unexpected [^\n]{0,1000}\b400 Bad Request'),
    # In this race ctr loses what the registry said of the manifest; the next try tells it.
    (Seen.FAILED, r"io: read/write on closed pipe"),
    (Seen.NOT_FOUND, r"\b404 Not Found|(?<!\")(?:: |\w )not found$|repository does not exist"),
    (Seen.BROKEN_OFF, r"\bEOF\b|connection reset|broken pipe|closed network connection|server closed idle|GOAWAY"),
    (Seen.BROKEN_OFF, r"failed size validation"),  # to 1.5: what came of a layer was too short
)
_LOCAL = re.compile(r'image "[^"]{0,1000}": not found|content digest sha256:\w{1,200}: not found|no match for platform')
_INCOMPLETE = "missing in your target registry"  # of an index, which ctr 1.0 pushes without its other platforms
_WANTS_TLS = re.compile(r"\b400 Bad Request")
_MOST = 1 << 14  # characters of them that are looked at; the cause is the last


def meaning(stderr: str, registry: Registry) -> Seen | None:
    """What a failed push or pull says of the registry; None where it is no business of the registry's."""
    said = _last_words(stderr)
    if _LOCAL.search(said) or _INCOMPLETE in said or daemon_trouble(said):
        return None
    if registry.scheme == "http" and _WANTS_TLS.search(said) and "failed commit" not in said:
        return Seen.WANTS_TLS
    return next((seen for seen, words in _WORDS if re.search(words, said, re.MULTILINE)), None)


def _last_words(stderr: str) -> str:
    """ctr's own error; 1.5 to 1.7 log what went wrong with other hosts before it."""
    _, found, said = stderr.rpartition("ctr: ")
    return said.strip()[-_MOST:] if found else shell.tail(stderr)


_KINDS: dict[Seen, type[RegistryError]] = {
    Seen.UNRESOLVED: RegistryUnresolved,
    Seen.REFUSED: RegistryUnreachable,
    Seen.NO_ANSWER: RegistryTimeout,
    Seen.NO_TLS: RegistryScheme,
    Seen.WANTS_TLS: RegistryScheme,
    Seen.UNKNOWN_CA: RegistryTls,
    Seen.EXPIRED: RegistryTls,
    Seen.NOT_YET: RegistryTls,
    Seen.WRONG_NAME: RegistryTls,
    Seen.TLS_FAILED: RegistryTls,
    Seen.CA_FILE: RegistryTls,
    Seen.LOGIN: RegistryUnauthorized,
    Seen.UNAUTHORIZED: RegistryUnauthorized,
    Seen.DENIED: RegistryDenied,
    Seen.NOT_FOUND: RepositoryNotFound,
    Seen.FAILED: RegistryFailed,
    Seen.BROKEN_OFF: RegistryBrokenOff,
}


def error(seen: Seen, reference: str, said: str, *, login: bool) -> HostError:
    """What is to be told of it.

    Args:
        reference: what was asked for there.
        login: whether we came with one.
    """
    what = seen.value
    if seen is Seen.UNAUTHORIZED and not login:
        what = "it wants a login"
    return _KINDS.get(seen, RegistryError)(f"registry of {reference}: {what}", said=said, hint=REMEDIES.get(seen, ""))
