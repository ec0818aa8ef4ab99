"""What ctr's words about a registry mean, on 1.0.3 to 2.1.9, and the error that tells it. Pure."""

from __future__ import annotations

import re

from ctr_ferry import errors
from ctr_ferry.ctr.failures import daemon_trouble
from ctr_ferry.oci.registry import Registry, RegistryState
from ctr_ferry.text import tail

# The first pattern that matches counts. ctr's texts have URLs in them, with ports and digests.
_WORDS = (
    (RegistryState.UNRESOLVED, r"dial tcp: lookup |no such host|server misbehaving"),
    (RegistryState.REFUSED, r"connect: connection refused"),
    (RegistryState.NO_ANSWER, r"no route to host|network is unreachable|i/o timeout|deadline exceeded"),
    (RegistryState.NO_ANSWER, r"handshake timeout|Client\.Timeout|connect: connection timed out"),
    (RegistryState.EXPIRED, r"x509: certificate has expired or is not yet valid"),
    (RegistryState.WRONG_NAME, r"x509: (?:certificate is valid for|cannot validate certificate for)"),
    (RegistryState.WRONG_NAME, r"x509: certificate (?:is not valid|relies on legacy Common Name)"),
    (RegistryState.UNKNOWN_CA, r"x509: certificate signed by unknown authority"),
    (RegistryState.TLS_FAILED, r"x509: |tls: "),
    (RegistryState.NO_TLS, r"server gave HTTP response to HTTPS client"),
    (RegistryState.DENIED, r"insufficient_scope|\b403 Forbidden|denied: requested access"),
    (RegistryState.UNAUTHORIZED, r"\b401 Unauthorized|no basic auth credentials|authorization failed"),
    (RegistryState.FAILED, r"(?:status|response)[^\"\n]{0,1000}: (?:5\d\d|429)\b"),
    (RegistryState.FAILED, r"\b(?:5\d\d|429) [A-Z][a-z]+|toomanyrequests"),
    (RegistryState.FAILED, r"quota [^\"\n]{0,1000}exceeded|exceed\w{0,8} [^\"\n]{0,1000}(?:quota|upper limit)"),
    # docker-registry rewrites its links in place. When several hosts push the same blobs, one may see no link.
    (RegistryState.FAILED, r'failed commit on ref "[^"]{0,1000}": unexpected [^\n]{0,1000}\b400 Bad Request'),
    # A race in ctr: it loses the registry's answer about the manifest. The next try gets the answer.
    (RegistryState.FAILED, r"io: read/write on closed pipe"),
    (RegistryState.NOT_FOUND, r"\b404 Not Found|(?<!\")(?:: |\w )not found$|repository does not exist"),
    (RegistryState.BROKEN_OFF, r"\bEOF\b|connection reset|broken pipe|closed network connection"),
    (RegistryState.BROKEN_OFF, r"server closed idle|GOAWAY"),
    (RegistryState.BROKEN_OFF, r"failed size validation"),  # up to 1.5, for a layer that arrived too short
)
_LOCAL = re.compile(r'image "[^"]{0,1000}": not found|content digest sha256:\w{1,200}: not found|no match for platform')
_INCOMPLETE = "missing in your target registry"  # ctr 1.0 pushes an index without its other platforms
_WANTS_TLS = re.compile(r"\b400 Bad Request")
_MOST = 1 << 14  # characters of an error that are searched, from its end; the cause comes last


def meaning(stderr: str, registry: Registry) -> RegistryState | None:
    """The state of the registry by ctr's stderr; None where it is not the cause, or the words are not known."""
    _, found, last = stderr.rpartition("ctr: ")  # 1.5 to 1.7 log the failures of other hosts before ctr's own error
    detail = last.strip()[-_MOST:] if found else tail(stderr)
    if _LOCAL.search(detail) or _INCOMPLETE in detail or daemon_trouble(detail):
        return None
    if registry.scheme == "http" and _WANTS_TLS.search(detail) and "failed commit" not in detail:
        return RegistryState.WANTS_TLS
    return next((state for state, words in _WORDS if re.search(words, detail, re.MULTILINE)), None)


_KINDS: dict[RegistryState, type[errors.RegistryError]] = {
    RegistryState.UNRESOLVED: errors.RegistryUnresolved,
    RegistryState.REFUSED: errors.RegistryUnreachable,
    RegistryState.NO_ANSWER: errors.RegistryTimeout,
    RegistryState.NO_TLS: errors.RegistryScheme,
    RegistryState.PLAIN_TOKENS: errors.RegistryScheme,
    RegistryState.WANTS_TLS: errors.RegistryScheme,
    RegistryState.UNKNOWN_CA: errors.RegistryTls,
    RegistryState.EXPIRED: errors.RegistryTls,
    RegistryState.NOT_YET: errors.RegistryTls,
    RegistryState.WRONG_NAME: errors.RegistryTls,
    RegistryState.TLS_FAILED: errors.RegistryTls,
    RegistryState.CA_FILE: errors.RegistryTls,
    RegistryState.LOGIN: errors.RegistryUnauthorized,
    RegistryState.UNAUTHORIZED: errors.RegistryUnauthorized,
    RegistryState.DENIED: errors.RegistryDenied,
    RegistryState.NOT_FOUND: errors.RepositoryNotFound,
    RegistryState.FAILED: errors.RegistryFailed,
    RegistryState.BROKEN_OFF: errors.RegistryBrokenOff,
}


def error(state: RegistryState, reference: str, detail: str, *, login: bool) -> errors.HostError:
    """The error for a state of a reference's registry. ``login`` tells whether the request had one."""
    what = "it wants a login" if state is RegistryState.UNAUTHORIZED and not login else state.words
    return _KINDS.get(state, errors.RegistryError)(f"registry of {reference}: {what}", detail=detail, hint=state.remedy)
