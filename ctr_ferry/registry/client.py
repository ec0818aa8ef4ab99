"""The registry API through one host: logging in, and what the registry has.

Requests go through the host (`http`). The password goes to the registry, or to the token service that the registry
names, inside TLS where the registry uses TLS. It is never stored on a host.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urljoin

from ctr_ferry.oci.descriptor import INDEXES, MANIFESTS
from ctr_ferry.oci.reference import is_digest
from ctr_ferry.oci.registry import Challenge, Login, Registry, RegistryState, RegistryStateError, plain_realm
from ctr_ferry.registry import refusals
from ctr_ferry.registry.http import MOST, Reply, Requests, parts_of
from ctr_ferry.ssh.host import Host

LIMIT = 10.0  # seconds for one answer
_ALL = 30.0  # seconds for all blobs of one image
_REDIRECTS = 3
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1
# Types that ctr cannot pull are asked for as well: a tag that has one is not free.
_OLD = (
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
_ACCEPT = ", ".join((*sorted(INDEXES | MANIFESTS), *_OLD, "*/*"))
_NOTHING = {"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"}  # distribution, spec/api, errors; the last is Harbor's
_LONGEST_TOKEN = 32 << 10
_MOST_ERRORS, _LONGEST_WORDS = 3, 200  # of one answer; characters of one error
_TELL_MORE = {*range(400, 500)} - {401, 429}  # statuses to HEAD after which GET is tried
_MAY_NEED_LOGIN = (403, 404, 429)  # statuses for an anonymous token, which may differ for a login
_REDIRECTED = (301, 302, 303, 307, 308)
FindLogin = Callable[[], Login | None]


class Client:
    """Asks one registry through one host; without a login until the registry wants one.

    Args:
        find_login: finds the login. It is called only once the registry asks for a login.
        limit, allow_curl: as for `Requests`.

    Attributes:
        login: the login that is in use; None while there is none.

    Raises:
        RegistryStateError: the registry's ca_file cannot be read.
    """

    def __init__(
        self,
        host: Host,
        registry: Registry,
        find_login: FindLogin = lambda: None,
        *,
        limit: float = LIMIT,
        allow_curl: bool = True,
    ) -> None:
        self._registry, self._find_login = registry, find_login
        self.login: Login | None = None
        self._requests = Requests(host, registry, limit=limit, allow_curl=allow_curl)
        self._authorization = ""
        self._path, self._tokens = "", dict[str, str]()  # the repository in question, and the tokens for others
        self._plain_realm = ""  # a token service without TLS, of a registry with TLS

    def close(self) -> None:
        """Closes the connections that are kept for the next requests."""
        self._requests.close()

    def find(self, path: str, reference: str) -> str | None:
        """Looks up what a tag or digest of a repository points at.

        Of the headers, only the digest counts. Type and length are what the manifest's own bytes say.

        Args:
            path: the repository, without the registry's name.

        Returns:
            The manifest's or index's digest; None where the registry has nothing under the reference.

        Raises:
            RegistryStateError: the registry did not answer the question.
            Unreachable: the connection to the host broke.
        """
        self._turn_to(path)
        where = f"/v2/{path}/manifests/{reference}"
        reply = head = self._ask_logging_in("HEAD", where)
        # The body has the registry's own words. Some registries limit HEAD, or do not know it.
        if (reply.status == 200 and not _digest_in_headers(reply)) or reply.status in _TELL_MORE:
            reply = self._ask_logging_in("GET", where)
        if reply.status == 404:
            if head.status == 200 or not _says_nothing_is_there(reply):
                raise RegistryStateError(RegistryState.UNCLEAR, f"{head.status} to HEAD, {reply.status} to GET")
            return None
        if reply.status != 200:
            raise self._error(reply)
        return _digest_in_headers(reply) or _digest_of_body(reply)

    def read(self, path: str, reference: str) -> bytes:
        """Reads a manifest or index; empty where the registry does not have it. Raises as `find`."""
        self._turn_to(path)
        reply = self._ask_logging_in("GET", f"/v2/{path}/manifests/{reference}")
        if reply.status not in (200, 404):
            raise self._error(reply)
        return reply.body if reply.status == 200 else b""

    def _turn_to(self, path: str) -> None:
        """Takes up the token for a repository. A registry may answer 403 or 404 to another's; a password is for all."""
        if path != self._path and not self._authorization.startswith("Basic"):
            self._tokens[self._path] = self._authorization
            self._authorization = self._tokens.get(path, "")
        self._path = path

    def _error(self, reply: Reply) -> RegistryStateError:
        """The error that an answer means, with the registry's own words."""
        wait = reply.headers.get("retry-after", "")
        asked = f" (Retry-After: {wait[:40]})" if wait else ""
        seconds = int(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else 0
        return RegistryStateError(self._state_of(reply), f"{_told(reply)}{asked}", seconds)

    def _state_of(self, reply: Reply) -> RegistryState:
        if reply.status == 401:
            # The login was accepted, and lacks this right (distribution, spec/auth/token).
            lacks = reply.challenge.parameters.get("error") == "insufficient_scope"
            lacks = lacks or (self.login is not None and self._authorization.startswith("Bearer"))
            return RegistryState.DENIED if lacks else RegistryState.UNAUTHORIZED
        said = said_by(reply)
        if said or reply.status in (403, 429) or reply.status >= 500:
            return refusals.of_status(str(reply.status), said)
        if reply.status == 400 and self._registry.scheme == "http":
            return RegistryState.WANTS_TLS  # a registry says what is bad about a request for a manifest
        return RegistryState.NO_REGISTRY

    def _ask_logging_in(self, method: str, path: str) -> Reply:
        """Asks without a login, then with an anonymous token, then with the login, until one gets an answer.

        Where the inventory names a login, no anonymous token is tried.
        """
        reply = self.ask(method, path)
        named = bool(self._registry.username or self._registry.password_env)
        if reply.status == 401 and not (self.login or named) and reply.challenge.scheme.lower() == "bearer":
            reply = self._ask_anonymously(method, path, reply)
        if reply.status == 401 or (self._authorization and reply.status in _MAY_NEED_LOGIN):
            return self.logged_in(method, path, reply)
        return reply

    def _ask_anonymously(self, method: str, path: str, reply: Reply) -> Reply:
        try:
            self._authorization = f"Bearer {self._token(reply.challenge)}"
        except RegistryStateError as error:
            if error.state is RegistryState.UNAUTHORIZED and self._find_login():
                return reply
            raise
        return self.ask(method, path)

    def ask(self, method: str, path: str) -> Reply:
        """Asks once, with the login or token that is in use so far. Raises as `find`."""
        reply = self._follow(method, self._registry.at(path.removeprefix("/v2")), self._headers)
        if self._registry.scheme == "https":
            self._plain_realm = self._plain_realm or plain_realm(reply.headers.get("www-authenticate", ""))
        return reply

    def logged_in(self, method: str, path: str, reply: Reply) -> Reply:
        """Asks again with the login, where the registry wants one and there is one; else returns the reply so far.

        Raises as `find`, and UsageError where the login cannot be read.
        """
        if reply.status != 401 and not self._authorization:
            return reply
        if not self.login:
            self.login = self._find_login()
            if not self.login:
                return reply
            self._authorization, self._tokens = "", {}
            # A server whose certificate only the host trusts may have given the answer so far.
            if self._requests.log_in() or reply.status != 401:
                reply = self.ask(method, path)
        if reply.status != 401 or not self._authorize(self.login, reply.challenge):
            return reply
        return self.ask(method, path)

    def _authorize(self, login: Login, challenge: Challenge) -> bool:
        """Sends what the registry asks for from now on; False where that is no known way to log in."""
        self._refuse_plain_tokens()
        scheme = challenge.scheme.lower()
        if scheme == "bearer":
            self._authorization = f"Bearer {self._token(challenge)}"
        elif scheme == "basic":
            self._authorization = _basic(login)
        return scheme in ("bearer", "basic")

    def _refuse_plain_tokens(self) -> None:
        """Refuses to log in where ctr, which logs in after ctr-ferry, would send the password without TLS."""
        if self._plain_realm:
            raise RegistryStateError(RegistryState.PLAIN_TOKENS, f"token service {self._plain_realm[:200]}")

    def refuse_plain_tokens_of_pushes(self, path: str) -> None:
        """Raises RegistryStateError where a login for pushes would go to a token service without TLS.

        A registry that anybody may read asks for a login only where a push begins. This request begins none: it has no
        login. ctr would send the password wherever the answer says.
        """
        if self._registry.scheme != "https":
            return
        if not self._plain_realm:
            self.ask("POST", f"/v2/{path}/blobs/uploads/")
        self._refuse_plain_tokens()

    def log_in(self, path: str) -> None:
        """Sends the login with every request from now on.

        Without a login, a registry may say that there is no such image rather than ask for a login. Raises as `find`,
        and UsageError where the login cannot be read.
        """
        self._turn_to(path)
        if (self.login and self._authorization) or not (login := self._find_login()):
            return
        if not self.login:
            self._tokens = {}
            self._requests.log_in()
        self._authorization, self.login = "", login
        reply = self.ask("GET", "/v2/")
        if reply.status != 401:
            self._refuse_plain_tokens()
            self._authorization = _basic(login)
            return
        challenge = reply.challenge
        scope = {"scope": f"repository:{path}:pull"}
        self._authorize(login, replace(challenge, parameters=scope | {**challenge.parameters}))

    def _token(self, challenge: Challenge) -> str:
        """Fetches the token that the challenge asks for; an anonymous one where there is no login."""
        realm = challenge.parameters.get("realm", "")
        asked = {name: challenge.parameters[name] for name in ("service", "scope") if name in challenge.parameters}
        headers = {}
        if self.login and (realm.lower().startswith("https://") or self._registry.scheme == "http"):
            headers["Authorization"] = _basic(self.login)
        url, named = f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", f"(token service {realm[:200]})"
        try:
            reply = self._follow("GET", url, headers)
        except RegistryStateError as error:
            raise RegistryStateError(error.state, f"{error.detail or error.state.words} {named}") from error
        if reply.status in (400, 401, 403):
            raise RegistryStateError(RegistryState.UNAUTHORIZED, f"{_told(reply)} {named}")
        if reply.status == 429:
            raise self._error(reply)
        answer = _object(reply.body)
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise RegistryStateError(RegistryState.FAILED, f"{reply.status} without a token {named}")
        # In curl's configuration, a line break in the token would begin another option.
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
            raise RegistryStateError(RegistryState.FAILED, f"{reply.status} with a malformed token {named}")
        return token

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Asks, and follows redirects. Another origin gets no login, and cannot tell where to send it."""
        origin = parts_of(url)[:2]  # scheme and host: a login inside TLS stays inside TLS
        for redirects in range(_REDIRECTS):
            reply = replace(self._requests.ask(method, url, headers), redirected=redirects > 0)
            if reply.status not in _REDIRECTED or not reply.headers.get("location"):
                here = parts_of(url)[:2] == origin
                return reply if here else replace(reply, headers={**reply.headers, "www-authenticate": ""})
            try:
                url = urljoin(url, reply.headers["location"])
            except ValueError as error:
                detail = f"it sends to {reply.headers['location'][:80]}"
                raise RegistryStateError(RegistryState.NO_REGISTRY, detail) from error
            if parts_of(url)[:2] != origin:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise RegistryStateError(RegistryState.NO_REGISTRY, "it redirects in circles")

    def present(self, path: str, digests: Iterable[str]) -> frozenset[str] | None:
        """Those of the blobs that a repository has; None where the registry does not tell, or takes too long.

        Call `find` first: it finds out whether a login is needed.
        """
        found: set[str] = set()
        deadline = time.monotonic() + _ALL
        try:
            for digest in digests:
                if time.monotonic() > deadline:
                    return None
                reply = self._requests.ask("HEAD", self._registry.at(f"/{path}/blobs/{digest}"), self._headers)
                if reply.status not in (200, 307, 404):
                    return None
                if reply.status != 404:
                    found.add(digest)
        except RegistryStateError:
            return None
        return frozenset(found)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Accept": _ACCEPT} | ({"Authorization": self._authorization} if self._authorization else {})


def _digest_in_headers(reply: Reply) -> str:
    """The manifest's digest by the headers alone (distribution, spec/api, existing manifests); empty without one."""
    digest = reply.headers.get("docker-content-digest", "")
    return digest if is_digest(digest) else ""


def _codes(reply: Reply) -> list[tuple[str, str]]:
    """Code and message of each error that the registry itself reports (distribution, spec/api, errors)."""
    errors = _object(reply.body).get("errors")
    found = errors[:_MOST_ERRORS] if isinstance(errors, list) else []
    return [(str(each.get("code")), str(each.get("message") or "")) for each in found if isinstance(each, dict)]


def said_by(reply: Reply) -> str:
    """The registry's own words about what is wrong; empty where it is no registry, or does not say."""
    return "; ".join(": ".join(filter(None, each))[:_LONGEST_WORDS] for each in _codes(reply))


def _told(reply: Reply) -> str:
    return ": ".join(filter(None, (f"{reply.status} {reply.reason[:80]}", said_by(reply))))


def is_page(reply: Reply) -> bool:
    """Whether an answer is a page for people, which no registry gives under /v2/."""
    if "docker-distribution-api-version" in reply.headers:
        return False
    return reply.headers.get("content-type", "").lower().startswith("text/html") or reply.body[:64].lstrip()[:1] == b"<"


def _says_nothing_is_there(reply: Reply) -> bool:
    """Whether a 404 is the registry's own answer, and not a proxy's, or that of a server it redirects to."""
    codes = [code.upper() for code, _ in _codes(reply)]
    return not reply.redirected and bool(codes) and all(code in _NOTHING for code in codes)


def _digest_of_body(reply: Reply) -> str:
    if is_page(reply):
        raise RegistryStateError(RegistryState.NO_REGISTRY, f"{reply.status} with a page for people")
    if len(reply.body) >= MOST:
        raise RegistryStateError(RegistryState.NO_REGISTRY, f"a manifest of more than {MOST >> 20} MiB")
    return f"sha256:{hashlib.sha256(reply.body).hexdigest()}"


def _object(body: bytes) -> Mapping[str, Any]:
    """The JSON object in a body; empty where the body is anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password.reveal()}".encode()).decode()
