"""What ctr's words about a registry mean, on 1.0.3 to 2.3.4, and the error that tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from ctr_ferry import errors
from ctr_ferry.ctr.failures import UNPACKING, daemon_trouble
from ctr_ferry.oci.registry import Registry, RegistryState
from ctr_ferry.text import tail

_QUOTA = r"quota [^\"\n]{0,1000}exceeded|exceed\w{0,8} [^\"\n]{0,1000}(?:quota|upper limit)"
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
    (RegistryState.DENIED, r"insufficient_scope|denied: requested access"),
    (RegistryState.UNAUTHORIZED, r"no basic auth credentials|authorization failed"),
    (RegistryState.QUOTA, _QUOTA),
    (RegistryState.NO_REGISTRY, r"unexpected media type text/html|invalid checksum digest format"),
    # ctr sends a layer that an image has twice over two connections at once (1.2.6, 1.4.13). The next try finds the
    # layer in the registry.
    (RegistryState.RACE, r"\bune?xpected size \d{1,20}, expected |: no response$|with Body length \d"),
    # A race in ctr: it loses the registry's answer about the manifest. The next try gets the answer.
    (RegistryState.RACE, r"io: read/write on closed pipe"),
    (RegistryState.NOT_FOUND, r"(?<!\")(?:: |\w )not found$|repository does not exist"),
    (RegistryState.BROKEN_OFF, r"\bEOF\b|connection reset|broken pipe|closed network connection"),
    (RegistryState.BROKEN_OFF, r"server closed idle|GOAWAY"),
    (RegistryState.BROKEN_OFF, r"failed size validation"),  # up to 1.5, for a layer that arrived too short
    (RegistryState.RATE_LIMITED, r"toomanyrequests"),
)
# By status, and then by words; the first that matches counts. ctr up to 1.7 does not print the registry's own words.
_COMMIT = "failed commit on ref"  # of a layer, a config or a manifest
_STATUSES = (
    (r"401", r"insufficient_scope|denied: requested access", RegistryState.DENIED),
    (r"401", "", RegistryState.UNAUTHORIZED),
    (r"403", "", RegistryState.DENIED),
    (r"404", _COMMIT, RegistryState.NOT_TAKEN),  # an upload that the registry, or another replica of it, does not know
    (r"404", "", RegistryState.NOT_FOUND),
    (r"405", "", RegistryState.NO_PUSH),
    (r"413", "", RegistryState.TOO_LARGE),
    (r"415", "", RegistryState.MEDIA_TYPE),
    (r"429", "", RegistryState.RATE_LIMITED),
    (r"4\d\d", r"immutable|cannot be overwritten", RegistryState.IMMUTABLE),
    (r"4\d\d", _QUOTA, RegistryState.QUOTA),
    (r"412", "", RegistryState.RULE),
    # docker-registry rewrites its links in place. When several hosts push the same blobs, one may see no link.
    (r"4\d\d", _COMMIT, RegistryState.NOT_TAKEN),
    (r"4\d\d", "", RegistryState.REJECTED),
    (r"5\d\d", "", RegistryState.FAILED),
)
_STATUS = re.compile(r"(?:status|response|code)[^\"\n]{0,1000}: ([45]\d\d)\b|\b([45]\d\d) [A-Z][a-z]+")
_UPLOAD = re.compile(r'(?:failed to do request: P(?:ut|atch) "?|from P(?:UT|ATCH) request to )http://([^/:\s]{1,300})')
_PANIC = re.compile(r"^panic: send on closed channel$", re.MULTILINE)  # 1.6.20, after a failed upload
_LOCAL = re.compile(
    r'image "[^"]{0,1000}": not found|(?:content digest|manifest) sha256:\w{1,200}: not found|no match for platform'
)
_MOST = 1 << 14  # characters of an error that are searched, from its end; the cause comes last
_SLOWLY = (0.5, 1.0, 2.0)
# The faults that may pass: seconds before each further try. An image may have several layers that come twice.
PASSING: Mapping[RegistryState, Sequence[float]] = {
    RegistryState.FAILED: _SLOWLY,
    RegistryState.RATE_LIMITED: _SLOWLY,
    RegistryState.NOT_TAKEN: _SLOWLY,
    RegistryState.RACE: (0.1,) * 10,
}
# What a registry may answer where it does not let a blob be mounted from another repository.
REFUSED = (
    RegistryState.UNAUTHORIZED,
    RegistryState.DENIED,
    RegistryState.NOT_FOUND,
    RegistryState.REJECTED,
    RegistryState.NO_PUSH,
)
_LONGEST_WAIT = 10  # seconds that a registry may ask for


class Pauses:
    """How long to wait before each further try of one thing."""

    def __init__(self) -> None:
        self._left = {state: iter(pauses) for state, pauses in PASSING.items()}

    def after(self, state: RegistryState | None, wait: int = 0) -> float | None:
        """The seconds before the next try; None where the fault does not pass, or did not pass so far.

        Args:
            wait: the seconds that the registry asked for.
        """
        pause = next(self._left[state], None) if state in self._left else None
        return None if pause is None or wait > _LONGEST_WAIT else max(pause, wait)


def meaning(stderr: str, registry: Registry, *, answers: bool = False) -> RegistryState | None:
    """The state of the registry by ctr's stderr; None where it is not the cause, or the words are not known.

    Args:
        answers: whether the registry has answered ctr-ferry, with the same scheme.
    """
    if _PANIC.search(stderr):
        return RegistryState.RACE
    _, found, last = stderr.rpartition("ctr: ")  # 1.5 to 1.7 log the failures of other hosts before ctr's own error
    detail = last.strip()[-_MOST:] if found else tail(stderr)
    if UNPACKING in detail or _LOCAL.search(detail) or daemon_trouble(detail):
        return None
    upload = _UPLOAD.search(detail)
    if upload and registry.scheme == "https" and upload[1] == urlsplit(registry.url).hostname:
        return RegistryState.CLEAR_UPLOAD
    if match := _STATUS.search(detail):
        state = of_status(match[1] or match[2], detail)
        wants_tls = state is RegistryState.REJECTED and registry.scheme == "http" and not answers
        return RegistryState.WANTS_TLS if wants_tls else state
    return next((state for state, words in _WORDS if re.search(words, detail, re.MULTILINE)), None)


def of_status(status: str, said: str) -> RegistryState:
    """The state that a status of 400 or more means, with what was said besides."""
    found = (state for number, words, state in _STATUSES if re.fullmatch(number, status) and re.search(words, said))
    return next(found, RegistryState.NO_REGISTRY)


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
    RegistryState.CLEAR_UPLOAD: errors.RegistryScheme,
    **dict.fromkeys(
        (
            RegistryState.REJECTED,
            RegistryState.NOT_TAKEN,
            RegistryState.IMMUTABLE,
            RegistryState.RULE,
            RegistryState.NO_PUSH,
            RegistryState.TOO_LARGE,
            RegistryState.MEDIA_TYPE,
        ),
        errors.RegistryRefused,
    ),
    RegistryState.QUOTA: errors.RegistryFailed,
    RegistryState.RATE_LIMITED: errors.RegistryFailed,
    RegistryState.FAILED: errors.RegistryFailed,
    RegistryState.RACE: errors.RegistryBrokenOff,
    RegistryState.BROKEN_OFF: errors.RegistryBrokenOff,
}


def kind(state: RegistryState) -> str:
    """The kind of the error for a state."""
    return _KINDS.get(state, errors.RegistryError).kind


def error(state: RegistryState, reference: str, detail: str, *, login: bool) -> errors.HostError:
    """The error for a state of a reference's registry. ``login`` tells whether the request had one."""
    what = "it wants a login" if state is RegistryState.UNAUTHORIZED and not login else state.words
    return _KINDS.get(state, errors.RegistryError)(f"registry of {reference}: {what}", detail=detail, hint=state.remedy)
