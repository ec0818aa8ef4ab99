"""``run``: any shell command on every host, with inventory names, limits and a record."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.ctr.shell import Script, printable
from tasks.errors import CommandFailed, UsageError
from tasks.fleet.command import per_host
from tasks.fleet.outcome import Status
from tasks.ssh.host import Host


@dataclass(frozen=True, slots=True)
class Request:
    """The sh text to run."""

    command: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """What it said, and that it exited with 0."""

    exit: int
    stdout: str
    stderr: str

    @property
    def status(self) -> Status:
        """ok: whether it changed anything, only it knows."""
        return Status.OK

    def lines(self) -> list[str]:
        """Its output, without what could move a terminal's cursor."""
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
        return RunResult(0, f"would run: {request.command}", "")
    answer = host.ask(Script({"run": f"( {request.command}\n)"}))["run"]
    if not answer.ok:
        said = "\n".join(part.rstrip() for part in (answer.text, answer.stderr) if part.strip())
        raise CommandFailed(
            f"it exited with {answer.exit}",
            said=said,
            hint="see all of it with fab show --log",
            result=RunResult(answer.exit, answer.text, answer.stderr),
        )
    return RunResult(answer.exit, answer.text, answer.stderr)
