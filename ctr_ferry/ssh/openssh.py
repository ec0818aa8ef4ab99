"""OpenSSH's configuration. ``ssh -G`` is asked what the files say about a host; without ssh, paramiko reads them."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import ConfigParseError

from ctr_ferry.errors import Unreachable, UsageError
from ctr_ferry.shell import join
from ctr_ferry.ssh import open_files
from ctr_ferry.ssh.local_path import local_path, ls_line
from ctr_ferry.text import tail

_SYSTEM = Path("/etc/ssh/ssh_config")
_DEEPEST = 16  # files that include one another (READCONF_MAX_DEPTH of OpenSSH)
_LONGEST = 60  # seconds for ssh, which may run commands of Match exec and ask for canonical names
_LINE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)")
# What changes nothing here. Files with these alone need no question: distributions ship such a file.
_NO_MATTER = """
host match include sendenv setenv hashknownhosts forwardx11 forwardx11trusted loglevel ignoreunknown
serveraliveinterval serveralivecountmax tcpkeepalive compression controlmaster controlpath controlpersist
addkeystoagent updatehostkeys visualhostkey checkhostip rekeylimit requiredrsasize ciphers macs kexalgorithms
hostkeyalgorithms pubkeyacceptedalgorithms pubkeyacceptedkeytypes casignaturealgorithms ipqos escapechar
gssapiauthentication gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange connecttimeout
""".split()  # noqa: SIM905  (a list would take a line for each)
# Ssh options that decide where a login goes, whether it succeeds or what is trusted, and that are not honoured.
_NOT_HONOURED = """
AddressFamily BindAddress BindInterface KnownHostsCommand PKCS11Provider PreferredAuthentications ProxyUseFdpass
PubkeyAuthentication StrictHostKeyChecking VerifyHostKeyDNS
"""
_NAMES = {name.lower(): name for name in _NOT_HONOURED.split()}


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What ssh_config says about one host.

    Attributes:
        hostname: its address; the name itself if ssh_config has none.
        values: by option, in small letters, the values that differ from OpenSSH's own.
        notes: what is not honoured.
    """

    hostname: str
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def get(self, option: str) -> str | None:
        """The value of an option; None where ssh_config does not set it."""
        return next(iter(self.values.get(option, ())), None)

    @property
    def agent_socket(self) -> str | None:
        """Where the SSH agent listens, by IdentityAgent or else the environment; None where no agent is to be asked."""
        named = self.get("identityagent") or "SSH_AUTH_SOCK"
        if named == "none":
            return None
        variable = "SSH_AUTH_SOCK" if named == "SSH_AUTH_SOCK" else named.removeprefix("$") * named.startswith("$")
        return os.environ.get(variable) if variable else str(local_path(named))

    def files(self, option: str) -> list[str]:
        """The files that an option names, of which a line may name several: those for host keys."""
        return [word for value in self.values.get(option, ()) for word in value.split() if word.lower() != "none"]


class SSHConfig:
    """The ssh_config files of a run: those of the user and of the system, or the one of ``-S``.

    Raises:
        UsageError: the file of ``-S`` does not exist.
    """

    def __init__(self, file: str | None, home: Path) -> None:
        self._file, self._home = (Path(file).absolute() if file else None), home
        if self._file and not self._file.exists():
            raise UsageError(f"the ssh_config {file} does not exist", hint=f"see what is there: {ls_line(self._file)}")
        self._files = [self._file] if self._file else [home / ".ssh/config", _SYSTEM]

    @cached_property
    def _lines(self) -> list[tuple[str, str]]:
        return [line for file in self._files for line in self._read(file, self._base(file))]

    @cached_property
    def aliases(self) -> frozenset[str]:
        """The host names that the files have, without patterns. Files that Include names are read, too."""
        words = (word for key, rest in self._lines if key == "host" for word in _words(rest))
        return frozenset(word for word in words if not set("*?!") & set(word))

    @lru_cache(maxsize=4096)  # noqa: B019  (a run has one object)
    def of(self, name: str, user: str | None = None, port: int | None = None) -> HostConfig:
        """What the files say about a host, with the user and the port that are given elsewhere.

        Raises:
            Unreachable: ssh refuses the files, or what they say about this host.
            UsageError: paramiko cannot parse a file.
        """
        if all(key in _NO_MATTER for key, _ in self._lines):
            return HostConfig(name)
        found = self._ask([*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", name])
        if found is None:
            return self._by_paramiko(name)
        values = {key: value for key, value in found.items() if value != self._defaults.get(key)}
        hostname = values.pop("hostname", [name])[0]
        return HostConfig(hostname, values, _not_honoured(values))

    def check(self) -> None:
        """Raises UsageError if a file cannot be parsed: ssh parses also what is about other hosts."""
        try:
            self.of("localhost")
        except Unreachable as error:
            hint = f"{error.hint}; then run the command again"
            raise UsageError("ssh refuses its configuration", detail=error.detail, hint=hint) from error

    @cached_property
    def _defaults(self) -> dict[str, list[str]]:
        run = _ssh(["-F", "none", "--", "localhost"])
        return _parsed(run.stdout) if run else {}

    def _ask(self, words: Sequence[str]) -> dict[str, list[str]] | None:
        """The answer of ``ssh -G``; None where there is no ssh, or it does not run here."""
        command = join(("ssh", "-G", *(["--"] * words[-1].startswith("-")), words[-1]))
        try:
            with self._given() as (option, originals):
                run = _ssh([*option, *words])
        except (OSError, subprocess.TimeoutExpired) as error:
            hint = open_files.advice() if open_files.is_limit(error) else f"see how long it takes: {command}"
            raise Unreachable(f"ssh does not say how {words[-1]} is reached", detail=str(error), hint=hint) from error
        if run is None:
            return None
        if run.returncode:
            said = run.stderr
            for copy, original in originals.items():
                said = said.replace(copy, original)
            if "jumphost loop" in said:
                raise own_gateway(words[-1])
            raise Unreachable(
                f"ssh refuses what its configuration has for {words[-1]}",
                detail=tail(said),
                hint=f"correct it; this shows the same: {command}",
            )
        return _parsed(run.stdout)

    @contextmanager
    def _given(self) -> Iterator[tuple[list[str], dict[str, str]]]:
        """The option that names the files to ssh, and their names by those of their copies.

        ssh takes the home folder of the user database. Where HOME is another one, ssh gets copies of the files in
        which ``~`` is HOME.
        """
        if self._home == Path(_home()) or not _home():
            yield ["-F", str(self._file)] if self._file else [], {}
            return
        with tempfile.TemporaryDirectory(prefix="ctr-ferry-ssh-") as folder:
            copies: dict[str, str] = {}
            files = [self._copy(file, self._base(file), Path(folder), copies) for file in self._files]
            top = Path(folder, "top")
            top.write_text("".join(f"Include {file}\n" for file in files))
            yield ["-F", str(top)], copies

    def _copy(self, file: Path, base: Path, folder: Path, copies: dict[str, str]) -> Path:
        if base != _SYSTEM.parent and not self._file:
            _demand_own(file)
        copy = folder / f"{len(copies)}-"
        copies[str(copy)] = str(file)
        lines = []
        for line in _text(file).split("\n"):
            key, rest = _parts(line)
            changed = re.sub(r'(?<=[\s"=,])~/', f"{self._home}/", line)
            if key == "include" and len(copies) < _DEEPEST**2:
                each = [self._copy(included, base, folder, copies) for included in self._included(rest, base)]
                changed = f"Include {' '.join(map(str, each))}" if each else "#"
            lines.append(changed)
        copy.write_bytes("\n".join(lines).encode("latin-1"))
        return copy

    def _base(self, file: Path) -> Path:
        """The folder that relative paths of Include start from."""
        return _SYSTEM.parent if file == _SYSTEM else self._home / ".ssh"

    def _included(self, patterns: str, base: Path) -> list[Path]:
        words = (f"{self._home}{word[1:]}" if word.startswith("~/") else word for word in _words(patterns))
        return [file for word in words for file in sorted(Path("/").glob(str(base / word)[1:]))]

    def _read(self, file: Path, base: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
        for key, rest in map(_parts, _text(file).split("\n")):
            if key:
                yield key, rest
            if key == "include" and depth < _DEEPEST:
                for each in self._included(rest, base):
                    yield from self._read(each, base, depth + 1)

    def _by_paramiko(self, name: str) -> HostConfig:
        config = paramiko.SSHConfig()
        notes: dict[str, None] = {}
        for file in self._files:
            lines = []
            for number, line in enumerate(_text(file).split("\n"), 1):
                key, rest = _parts(line)
                instead, note = _for_paramiko(key, rest)
                if note and (key != "include" or self._included(rest, self._base(file))):
                    notes[note] = None
                lines.append(instead or line)
                try:
                    paramiko.SSHConfig().parse(lines[-1:])
                    _check_port(key, rest)
                except (ConfigParseError, ValueError) as error:
                    hint = "correct that line, then run the command again"
                    raise UsageError(f"{file}: line {number}: {error}", hint=hint) from error
            config.parse(lines)
        found: dict[str, Any] = dict(config.lookup(name))
        ways = [key for key in found if key in ("proxyjump", "proxycommand")]  # the first one counts
        values = {
            key: value if isinstance(value, list) else [value]
            for key, value in found.items()
            if value not in (None, "none") and key not in ways[1:]
        }
        return HostConfig(values.pop("hostname", [name])[0], values, (*notes, *_not_honoured(values)))


def _for_paramiko(key: str, rest: str) -> tuple[str, str]:
    """A line that paramiko takes in place of one that it misreads, and a note about that; both may be empty."""
    criteria = [word.lstrip("!") for word in _words(rest)[::2]]
    understood = criteria == ["all"] or {*criteria} <= {"host", "originalhost", "user", "localuser", "exec"}
    if key == "include" or (key == "match" and not understood):
        line = "Host !*" if key == "match" else "#"
        return line, f"ssh_config's {key.title()} {rest.strip()} is not honoured: there is no ssh that could read it"
    return "", ""


def _check_port(key: str, rest: str) -> None:
    """Raises ValueError for a port that is none; paramiko takes any word."""
    port = "".join(_words(rest)[:1])
    if key == "port" and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"Bad port {port!r}")


def _not_honoured(values: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """One note for all options that are set and are not honoured."""
    names = [name for key, name in _NAMES.items() if key in values]
    are = "are" if len(names) > 1 else "is"
    return (f"of ssh_config, {', '.join(names)} {are} not honoured",) if names else ()


def own_gateway(name: str) -> Unreachable:
    """The error for a host that ssh_config lets be reached through itself."""
    return Unreachable(
        f"{name} is its own gateway in ssh_config",
        hint=f"write into ~/.ssh/config, before this ProxyJump: Host {name}; and below it: ProxyJump none",
    )


def _ssh(words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Runs ``ssh -G``; None where there is no ssh, or this user has no name, without which ssh does not run."""
    ssh = shutil.which("ssh")
    if not ssh or not _home():
        return None
    return subprocess.run(
        [ssh, "-T", "-G", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_LONGEST,
        start_new_session=True,  # a Ctrl-C is for the run: an ssh that it ended would look like one that refuses
    )


@cache
def _home() -> str:
    """The user's home folder in the user database; empty for a user without a name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _parsed(output: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def _demand_own(file: Path) -> None:
    """Raises Unreachable for a user's file that others can write, as ssh refuses it: it can run commands."""
    with suppress(FileNotFoundError):
        state = file.stat()
        if state.st_uid not in (0, os.getuid()) or state.st_mode & 0o022:
            raise Unreachable(
                f"{file} is refused as ssh would refuse it: another user can write it",
                hint=f"make it your own: {join(('chmod', 'go-w', str(file)))}",
            )


def _text(file: Path) -> str:
    """A file's text, each byte as one letter; empty if it cannot be read, of which ssh tells."""
    try:
        return file.read_bytes().decode("latin-1")
    except OSError as error:
        if open_files.is_limit(error):
            raise
        return ""


def _parts(line: str) -> tuple[str, str]:
    """A line's keyword in small letters, and the rest; both are empty for a comment."""
    found = _LINE.match(line)
    return (found[1].lower(), found[2]) if found else ("", "")


def _words(rest: str) -> list[str]:
    try:
        return shlex.split(rest, comments=True)
    except ValueError:  # ssh tells of it
        return []


@cache
def _of_run(file: str | None, home: str) -> SSHConfig:
    return SSHConfig(file, Path(home))


def ssh_config(config: Any) -> SSHConfig:
    """The ssh_config files of a run, by Fabric's configuration (``-S``, ``ssh_config_path``, ``load_ssh_configs``)."""
    file = vars(config)["_runtime_ssh_path"] or config.ssh_config_path
    return _of_run(file if file or config.load_ssh_configs else os.devnull, str(local_path("~")))
