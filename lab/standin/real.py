"""The real ctr behind the stand-in: reach its daemon, run it, and put its errors into 1.2.6's words."""

from __future__ import annotations

import _socket  # socket, typing and subprocess take 10 ms each at every start
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

Rules = list[tuple[str, str]]
"""Regular expressions and the replacements of their matches, in order."""

DIAL_SECONDS = 10
"""ctr 1.2.6 tries for so many seconds, whatever --timeout and --connect-timeout say."""


def say(fd: int, text: str) -> None:
    """Write the whole text."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(fd, data) :]


def fail(message: str, status: int = 1) -> NoReturn:
    """End with the message on stderr."""
    say(2, message + "\n")
    sys.exit(status)


def refuse(what: str) -> NoReturn:
    """End with exit status 70: the stand-in does not cover this."""
    fail(f"ctr stand-in: {what} is not covered", 70)


class Beneath:
    """The ctr in $LAB_REAL_CTR with the global flags of this invocation."""

    def __init__(self, values: dict[str, str]) -> None:
        self.path = os.environ.get("LAB_REAL_CTR") or refuse("running without $LAB_REAL_CTR")
        self.address = values.get("address", "/run/containerd/containerd.sock")
        self.flags = ["--address", self.address]
        for name in ("namespace", "timeout"):
            if name in values:
                self.flags += [f"--{name}", values[name]]
        if "debug" in values:
            self.flags.append("--debug")
        namespace = values.get("namespace") or os.environ.get("CONTAINERD_NAMESPACE") or "default"
        if not _is_old_namespace(namespace):
            refuse(f"namespace {namespace!r}, which containerd 1.2 calls invalid,")
        # ctr reads $CONTAINERD_ADDRESS from 1.4 on, so 1.2.6 ignores it.
        self.env = {name: value for name, value in os.environ.items() if name != "CONTAINERD_ADDRESS"}

    def dial(self) -> None:
        """Reach the daemon's socket, or end as 1.2.6 does: after 10 s, with one error for every cause."""
        deadline = time.monotonic() + DIAL_SECONDS
        while True:
            try:
                _knock(self.address.removeprefix("unix://"))
                return
            except OSError:
                if time.monotonic() >= deadline:
                    fail(f'ctr: failed to dial "{self.address}": context deadline exceeded')
                time.sleep(0.2)

    def become(self, args: list[str]) -> NoReturn:
        """Replace this process with the real ctr, for a command that 1.2.6 words in the same way."""
        os.execve(self.path, ["ctr", *self.flags, *args], self.env)

    def start(self, args: list[str], stdin: int = 0, stdout: int = 1) -> Run:
        """Start the real ctr as a child that reads and writes the given descriptors."""
        errors = os.memfd_create("stderr")
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in ((0, stdin), (1, stdout), (2, errors))]
        argv = ["ctr", *self.flags, *args]
        return Run(os.posix_spawn(self.path, argv, self.env, file_actions=actions), errors)

    def answer(self, args: list[str]) -> tuple[int, str, str]:
        """Run the real ctr with a command whose output is small; return exit status, stdout and stderr."""
        out = os.memfd_create("stdout")
        run = self.start(args, stdout=out)
        status, errors = run.end()
        return status, _text(out), errors


class Run:
    """A running real ctr. Its stderr goes to memory, so that it never waits for a reader."""

    def __init__(self, pid: int, errors: int) -> None:
        self.pid = pid
        self.errors = errors
        _forward_signals(pid)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return exit status and stderr."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return (128 - status if status < 0 else status), _text(self.errors)

    def kill(self) -> None:
        """End the process at once."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def in_old_words(stderr: str, rules: Rules) -> str:
    """Return the real ctr's stderr in 1.2.6's words. 1.2.6's log lines escape no quotes and end in a space."""
    import re  # noqa: PLC0415

    for pattern, replacement in rules:
        stderr = re.sub(pattern, replacement, stderr)
    return re.sub(r'(?m)^time="[^\n]*[^ \n]$', lambda line: line[0].replace('\\"', '"') + " ", stderr)


def _is_old_namespace(name: str) -> bool:
    """Tell whether containerd 1.2 takes a namespace: its parts begin with a letter and have two characters or more."""
    parts = name.replace(".", "-").split("-")
    return all(part.isascii() and part.isalnum() and part[0].isalpha() and len(part) > 1 for part in parts)


def _knock(path: str) -> None:
    """Connect to a socket, and close the connection."""
    knock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        knock.connect(path)
    finally:
        knock.close()


def _text(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "surrogateescape")


def _forward_signals(pid: int) -> None:
    """Pass the signals that end the stand-in on to the real ctr."""
    import signal  # noqa: PLC0415

    def end_both(number: int, _frame: object) -> None:
        os.kill(pid, number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_both)
