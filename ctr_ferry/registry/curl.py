"""An HTTP question that a host asks with its own curl or wget, where sshd forwards no connections. Pure.

The login comes from a terminal, as a line of curl's configuration: it is in no command line. wget has no such way,
and is asked only where no login is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ctr_ferry import shell
from ctr_ferry.oci.registry import RegistryState, headers
from ctr_ferry.shell import Answer
from ctr_ferry.text import tail

TYPED = 4000  # bytes of a line that a terminal holds
_HEAD = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3}) ?([^\r\n]*)\r?\n((?:[^\r\n]+\r?\n)*)\r?\n?")
_END = "\x04"  # of what a terminal is typed
_NO_TOOL = 127
_NOBODY = "/proc/self/task"  # a folder without a single file, on every host
LONG_HEAD = "a head of more than 64 KiB"
_MOST_HEAD = 1 << 16  # bytes of an answer's status line and headers, as http.client takes them
_HEADS = 5  # a proxy's and the registry's, with some to spare
# curl's exit statuses (curl(1)); 51 and 60 are about certificates.
_CURL = {
    5: RegistryState.UNRESOLVED,
    6: RegistryState.UNRESOLVED,
    7: RegistryState.REFUSED,
    28: RegistryState.NO_ANSWER,
    52: RegistryState.NO_ANSWER,
}
_CURL |= {56: RegistryState.NO_ANSWER, 77: RegistryState.CA_FILE}
_CERTIFICATE = (
    (RegistryState.EXPIRED, r"expired"),
    (RegistryState.NOT_YET, r"not yet valid"),
    (RegistryState.WRONG_NAME, r"subject name|host ?name|doesn't match|does not match"),
    (RegistryState.UNKNOWN_CA, r"issuer|self.signed|unknown|not trusted|verify failed"),
)


def ask(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    insecure: bool,
    proxy: str | None,
    seconds: int,
    terminal: str | None,
    authorities: bool,
    alone: bool = False,
) -> str:
    """The question as sh text: the tool's name, then head and body of the answer on stdout.

    Args:
        headers: without the login's.
        terminal: the device that curl reads the login's header from; None without a login.
        authorities: whether ``$authorities`` is a file of certificates.
        alone: whether no others are believed.
    """
    head = method == "HEAD"
    given = [f"--header={name}: {value}" for name, value in headers.items()]
    curl = ["curl", "-q", "-sS", "--include", "--max-time", str(seconds), *(["--head"] if head else [])]
    curl += (["--insecure"] if insecure else []) + (["--proxy", proxy] if proxy else [])
    curl += [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    curl += ["--config", terminal] if terminal else []
    wget = ["wget", "-q", "-S", "-O", "-", "-T", str(seconds), *(["--spider"] if head else []), *given]
    wget += ["--no-check-certificate"] if insecure else []
    through = shell.join(["env", f"http_proxy={proxy}", f"https_proxy={proxy}"]) + " " if proxy else ""
    trust = ' --cacert "$authorities"' if authorities else ""
    trust += f" --capath {_NOBODY}" if authorities and alone else ""  # curl would look there as well
    trusted = ' --ca-certificate="$authorities"' if authorities else ""
    other = f"elif command -v wget >/dev/null; then echo wget; {through}{shell.join(wget)}{trusted} {shell.join([url])}"
    return f"""if command -v curl >/dev/null; then echo curl; {shell.join(curl)}{trust} {shell.join([url])}
{other if not terminal else ""}
else (exit {_NO_TOOL}); fi"""


def typed(authorization: str) -> str:
    """What curl is typed of a login: a line of its configuration, and the end of it.

    Raises:
        ValueError: it would be more than that one word of it.
    """
    if not re.fullmatch(r"[ !#-\[\]-~]*", authorization):
        raise ValueError("a login header with quotes, backslashes or control characters")
    return f'header = "Authorization: {authorization}"\n{_END}'


def read(answer: Answer) -> tuple[int, str, dict[str, str], bytes] | RegistryState:
    """Status, reason, headers (names in lower case) and body of the answer; or why there is none."""
    tool, _, data = answer.stdout.partition(b"\n")
    if tool == b"wget":  # its head is on stderr, each line indented
        head = "\n".join(line[2:] for line in answer.stderr.split("\n") if line.startswith("  "))
        data = head.encode() + b"\n\n" + data
    for _ in range(_HEADS):
        if not (match := _HEAD.match(data[:_MOST_HEAD])):
            break
        body = data[match.end() :]
        if body.startswith(b"HTTP/"):  # that was the proxy's
            data = body
            continue
        lines = [line.partition(":") for line in match[3].decode("latin-1").split("\n")]
        fields = headers((name.strip(), value.strip()) for name, _, value in lines if name)
        return (
            RegistryState.NO_REGISTRY if fields is None else (int(match[1]), match[2].decode("latin-1"), fields, body)
        )
    return _why(answer)


def last_words(answer: Answer) -> str:
    """What the tool said; of curl not its advice."""
    found = re.search(r"curl: \(\d{1,3}\).{0,400}", answer.stderr)
    return found[0] if found else tail(answer.stderr, lines=1)


def _why(answer: Answer) -> RegistryState:
    if answer.exit == _NO_TOOL:
        return RegistryState.NOT_CHECKED
    if "wrong version number" in answer.stderr or "WRONG_VERSION_NUMBER" in answer.stderr:
        return RegistryState.NO_TLS
    about = next((state for state, words in _CERTIFICATE if re.search(words, answer.stderr)), None)
    if answer.exit in (35, 51, 60) or "certificate" in answer.stderr:
        return about or RegistryState.TLS_FAILED
    if "nable to resolve" in answer.stderr or "bad address" in answer.stderr:
        return RegistryState.UNRESOLVED
    if "onnection refused" in answer.stderr:
        return RegistryState.REFUSED
    return _CURL.get(answer.exit, RegistryState.NO_ANSWER)
