"""``run``: any shell command on every host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.errors import CommandFailed, ConnectionLost, RemoteTimeout, UsageError
from ctr_ferry.report.outcome import Status
from ctr_ferry.run.command import per_host
from ctr_ferry.shell import Script
from ctr_ferry.text import printable

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

_MOST = 128 << 10  # bytes
_HOW_FAR = "check how far the command came before you run it again: fab show --log"


@dataclass(frozen=True, slots=True)
class RunResult:
    """The command's exit status and output."""

    exit: int
    stdout: str
    stderr: str
    status = Status.OK  # only the command itself knows whether it changed anything
    verbatim = True  # nothing of the output is shortened or folded

    def lines(self) -> list[str]:
        """The output, without control characters; empty for a failed command, whose error has the output."""
        if self.exit:
            return []
        return [printable(line) for line in (*self.stdout.splitlines(), *self.stderr.splitlines())]


def parse(command: str | None = None) -> str:
    """The sh text to run; raises UsageError where it is missing or empty."""
    if not (command and command.strip()):
        raise UsageError("run needs a command", hint="fab -H HOST run 'uname -r'")
    return command


@per_host(parse, help={"command": "The POSIX sh text to run; quote it."}, positional=["command"], if_cut=_HOW_FAR)
def run(host: Host, command: str) -> RunResult:
    """Run any shell command on every host, with the inventory's names, limits and record."""
    if host.dry_run:
        _run(host, "-n", "-c", command, failure="the command is no valid sh: nothing ran")
        return RunResult(0, f"would run: {command}", "")
    return _run(host, "-c", command)


def _run(host: Host, *words: str, failure: str = "") -> RunResult:
    """Runs a separate shell, so that the text, valid or not, cannot change the script around it."""
    try:
        answer = host.ask(Script({"run": shell.join(["/bin/sh", *words])}), listener=Clip(), clip=Clip())["run"]
    except (ConnectionLost, RemoteTimeout) as error:
        error.hint = _HOW_FAR
        raise
    result = RunResult(answer.exit, answer.text, answer.stderr)
    if not answer.ok:
        detail = "\n".join(part.rstrip() for part in (answer.text, answer.stderr) if part.strip())
        raise CommandFailed(failure or f"the command exited with {answer.exit}", detail=detail, result=result)
    return result


class Clip:
    """Keeps ``most`` bytes of the beginning of endless output, and of its end: 32 outputs must fit into memory."""

    def __init__(self, most: int = _MOST) -> None:
        self.most = most
        self._room, self._end, self._lost = most, bytearray(), 0

    def hear(self, data: bytes) -> bytes:
        """Takes a piece of output; returns what belongs to the beginning, and keeps the last bytes for `end`."""
        through, rest = data[: self._room], data[self._room :]
        self._room -= len(through)
        self._end += rest
        if (over := len(self._end) - self.most) > self.most:  # seldom, since the deletion moves all bytes
            self._lost += over
            del self._end[:over]
        return through

    def end(self) -> bytes:
        """The end of the output, after a line that says how many bytes are missing before it."""
        return (f"\n… {self._lost} bytes are left out here …\n".encode() if self._lost else b"") + bytes(self._end)
