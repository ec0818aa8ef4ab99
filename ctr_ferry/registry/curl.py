"""HTTP requests by the host's own curl or wget, for hosts whose sshd forwards no connections. Pure.

curl reads the login from a terminal, as a line of its configuration, so that the login is in no command line. A long
token is typed in several lines, which `tr` joins. wget cannot do that. It is used only where no login is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ctr_ferry import shell
from ctr_ferry.ctr.programs import Program
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.oci.registry import RegistryState, headers
from ctr_ferry.shell import Answer
from ctr_ferry.text import tail

_MOST_TYPED = 2000  # bytes of a line; a terminal holds 4095 that nobody has read
_HEAD = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3}) ?([^\r\n]*)\r?\n((?:[^\r\n]+\r?\n)*)\r?\n?")
_END = "\x04"  # ends the input of a terminal
_NO_TOOL = 127
_EMPTY_FOLDER = "/proc/self/task"  # a folder without a single file, on every host
LONG_HEAD = "a head of more than 64 KiB"
_MOST_HEAD = 1 << 16  # bytes of an answer's status line and headers, the same limit as http.client's
_HEADS = 5  # heads in one output: a proxy's and the registry's, with some to spare
# curl's exit statuses (curl(1)); 51 and 60 are about certificates.
_CURL = {
    5: RegistryState.UNRESOLVED,
    6: RegistryState.UNRESOLVED,
    7: RegistryState.REFUSED,
    18: RegistryState.BROKEN_OFF,
    77: RegistryState.CA_FILE,
}
_CERTIFICATE = (
    (RegistryState.EXPIRED, r"expired"),
    (RegistryState.NOT_YET, r"not yet valid"),
    (RegistryState.WRONG_NAME, r"subject name|host ?name|doesn't match|does not match"),
    (RegistryState.UNKNOWN_CA, r"issuer|self.signed|unknown|not trusted|verify failed"),
)


def ask(method: str, url: str, headers: Mapping[str, str], route: Route, seconds: int) -> str:
    """The request as sh text, behind ``Route.prepare``. It prints the tool's name, then head and body of the answer.

    Args:
        headers: all but the login's.
        seconds: until the tool gives up.
    """
    curl = [Program.CURL, "-q", "-sS", "--include", "--max-time", str(seconds)]
    wget = [Program.WGET, "-q", "-S", "-O", "-", "-T", str(seconds)]
    if method == "HEAD":
        curl.append("--head")
        wget.append("--spider")
    if method == "POST":
        curl += ["--data", ""]
        wget.append("--post-data=")
    for name, value in headers.items():
        curl += ["--header", f"{name}: {value}"]
        wget.append(f"--header={name}: {value}")
    if route.registry.skip_verify:
        curl.append("--insecure")
        wget.append("--no-check-certificate")
    if route.proxy:
        curl += ["--proxy", route.proxy]
        wget = ["env", f"http_proxy={route.proxy}", f"https_proxy={route.proxy}", *wget]
    if route.terminal:
        curl += ["--config", "-"]
    by_curl, by_wget = shell.join(curl), shell.join(wget)
    if route.authorities:
        by_curl += ' --cacert "$authorities"'
        by_wget += ' --ca-certificate="$authorities"'
    if route.authorities and route.exclusive:
        by_curl += f" --capath {_EMPTY_FOLDER}"  # else curl searches the system's folder as well
    read = f"tr -d '\\n' <{shell.join([route.terminal])} | " if route.terminal else ""
    # Only GNU's wget prints the body of a 404, and only with this option.
    body = f"body=; {Program.WGET} --help 2>&1 | grep -q -e --content-on-error && body=--content-on-error"
    if_wget = f"elif {Program.WGET.is_there}; then echo {Program.WGET}; {body}\n{by_wget} $body {shell.join([url])}"
    return f"""if {Program.CURL.is_there}; then echo {Program.CURL}; {read}{by_curl} {shell.join([url])}
{"" if route.terminal else if_wget}
else (exit {_NO_TOOL}); fi"""


def typed(authorization: str) -> str:
    """The login's header for curl's configuration, to be typed; ValueError if curl would read more from it."""
    if not re.fullmatch(r"[ !#-\[\]-~]*", authorization):
        raise ValueError("a login header with quotes, backslashes or control characters")
    line = f'header = "Authorization: {authorization}"'
    pieces = [line[at : at + _MOST_TYPED] for at in range(0, len(line), _MOST_TYPED)]
    return "\n".join([*pieces, _END])


def read(answer: Answer) -> tuple[int, str, dict[str, str], bytes] | RegistryState:
    """Returns status, reason, headers (names in lower case) and body; without an answer, the state that this means."""
    first, _, data = answer.stdout.partition(b"\n")
    tool = first.decode("latin-1")
    if tool == Program.CURL and answer.exit:  # what it printed is a part of the answer, or a proxy's
        return _failure(answer)
    if tool == Program.WGET:  # prints the head to stderr, each line indented
        head = "\n".join(line[2:] for line in answer.stderr.split("\n") if line.startswith("  "))
        data = head.encode() + b"\n\n" + data
    for _ in range(_HEADS):
        if not (match := _HEAD.match(data[:_MOST_HEAD])):
            break
        body = data[match.end() :]
        if body.startswith(b"HTTP/"):  # the head was the proxy's
            data = body
            continue
        lines = [line.partition(":") for line in match[3].decode("latin-1").split("\n")]
        fields = headers((name.strip(), value.strip()) for name, _, value in lines if name)
        if fields is None:
            return RegistryState.NO_REGISTRY
        return int(match[1]), match[2].decode("latin-1"), fields, body
    return _failure(answer)


def last_words(answer: Answer) -> str:
    """What the tool printed last, as text for an error; curl's advice is left out."""
    found = re.search(r"curl: \(\d{1,3}\).{0,400}", answer.stderr)
    return found[0] if found else tail(answer.stderr, lines=1)


def _failure(answer: Answer) -> RegistryState:
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
