"""``run``: any shell command on every host, with inventory names, limits and a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.errors import CommandFailed, ConnectionLost, RemoteTimeout, UsageError
from ctr_ferry.report.outcome import Status
from ctr_ferry.run.command import per_host
from ctr_ferry.shell import Answer, Script
from ctr_ferry.text import printable

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

_MOST = 128 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """The sh text to run."""

    command: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """What it said, and how it ended."""

    exit: int
    stdout: str
    stderr: str

    @property
    def status(self) -> Status:
        """ok: whether it changed anything, only it knows."""
        return Status.OK

    def lines(self) -> list[str]:
        """Its output, without what could move a terminal's cursor; where it failed, the error has it."""
        if self.exit:
            return []
        return [printable(line) for line in (*self.stdout.splitlines(), *self.stderr.splitlines())]


def parse(command: str | None = None) -> Request:
    """The command line's one word.

    Raises:
        UsageError: where it is empty.
    """
    if not (command and command.strip()):
        raise UsageError("run needs a command", hint="fab -H all run 'uname -r'")
    return Request(command)


@per_host(parse, help={"command": "POSIX sh text; quote it."}, positional=["command"])
def run(host: Host, request: Request) -> RunResult:
    """Run any shell command on every host, with the inventory's names, limits and record."""
    if host.dry_run:
        _require_ok(_ask(host, "-n", "-c", request.command), "it is no valid sh")
        return RunResult(0, f"would run: {request.command}", "")
    answer = _ask(host, "-c", request.command)
    _require_ok(answer, f"it exited with {answer.exit}")
    return RunResult(answer.exit, answer.text, answer.stderr)


def _ask(host: Host, *words: str) -> Answer:
    """Runs a shell of its own, so that no text, valid or not, reaches into ours."""
    try:
        return host.ask(Script({"run": shell.join(["/bin/sh", *words])}), listener=Clip())["run"]
    except (ConnectionLost, RemoteTimeout) as error:
        error.hint = "how far it came nobody knows: look at the host before you run it again"
        raise


class Clip:
    """Hears endless output, and keeps its beginning and its end: 32 hosts at once must fit into memory.

    Attributes:
        most: bytes that are kept of either.
    """

    def __init__(self, most: int = _MOST) -> None:
        self.most = most
        self._room, self._end, self._lost = most, bytearray(), 0

    def hear(self, data: bytes) -> bytes:
        """Lets the beginning through, and holds back the end."""
        through, rest = data[: self._room], data[self._room :]
        self._room -= len(through)
        self._end += rest
        if (over := len(self._end) - self.most) > self.most:  # seldom, since it moves all of it
            self._lost += over
            del self._end[:over]
        return through

    def end(self) -> bytes:
        """What was held back, and how much is missing before it."""
        return (f"\n… {self._lost} bytes are left out here …\n".encode() if self._lost else b"") + bytes(self._end)


def _require_ok(answer: Answer, otherwise: str) -> None:
    if not answer.ok:
        detail = "\n".join(part.rstrip() for part in (answer.text, answer.stderr) if part.strip())
        raise CommandFailed(otherwise, detail=detail, result=RunResult(answer.exit, answer.text, answer.stderr))
