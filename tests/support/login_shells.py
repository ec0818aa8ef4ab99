"""A host's login shells on this machine, and remote commands as sshd starts them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh import guard

CACHE = Path(__file__).parents[2] / "lab" / ".state" / "cache"  # exists if the rehearsal fleet was up before
BUSYBOX = shutil.which("busybox") or next(map(str, CACHE.glob("trees/*/machine/usr/bin/busybox")), None)
LOGIN_SHELLS = ["sh", "bash", "zsh", "csh", "fish", "mksh", "ksh"]
SHELLS = {name: [path] for name in LOGIN_SHELLS if (path := shutil.which(name))}
SH = {name: path for name in ("dash", "bash") if (path := shutil.which(name))}
if BUSYBOX:
    SHELLS["busybox"] = [BUSYBOX, "sh"]
    SH["busybox"] = BUSYBOX
MARKER = "ferry-0123456789abcdef"
BOUNDARY = "ferry-000102030405060708090a0b0c0d0e0f"
NOISE = "Welcome to this host, begin one"
PATIENCE = 60  # seconds, after which a test that hangs says so


class Login:
    """A remote command as sshd starts it: in a session of its own, by a login shell whose start-up file prints text.

    Args:
        shell: the login shell.
        home: the login user's home.
        sh: the host's /bin/sh.
    """

    def __init__(self, shell: list[str], home: Path, sh: str = "/bin/sh") -> None:
        self.shell = shell
        self.sh = home / "sh"
        self.sh.symlink_to(sh)
        self.home = home
        self.bin = home / "bin"
        self.options = ""  # what a start-up file may have set
        self.token = secrets.token_hex(8)
        self.bin.mkdir()
        (home / ".config" / "fish").mkdir(parents=True)
        for file in (".cshrc", ".zshenv", ".bash_env", ".config/fish/config.fish"):
            (home / file).write_text(f"echo '{NOISE}'\n")
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, name: str, text: str) -> None:
        """Give this host a command that is found first on its PATH."""
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def start(self, line: str, stdin: bytes) -> subprocess.Popen[bytes]:
        env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "BASH_ENV": str(self.home / ".bash_env"),
            "OUT": str(self.home / "out"),
            "FERRY_TEST": self.token,
            "SHELLOPTS": self.options,
        }
        self.process = subprocess.Popen(
            [*self.shell, "-c", line.replace("/bin/sh", str(self.sh))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
            cwd=self.home,
        )
        assert self.process.stdin
        self.process.stdin.write(stdin)
        self.process.stdin.flush()
        return self.process

    def script(self, script: Script, *, limit: int = 3600, before: bytes = b"") -> subprocess.Popen[bytes]:
        text = guard.render(script, BOUNDARY, limit)
        line = guard.as_login_user(guard.bootstrap(MARKER, len(text)))
        return self.start(line, before + f"{MARKER}\n".encode() + text)

    def end(self, script: Script, seen: bytes = b"") -> dict[str, Answer]:
        """Wait for the end while stdin is still open, and return the answers.

        Args:
            seen: the part of stderr that was read before.
        """
        assert self.process and self.process.stdout and self.process.stderr
        self.process.wait(PATIENCE)
        return script.read(BOUNDARY, self.process.stdout.read(), seen + self.process.stderr.read())

    def end_stdin(self) -> None:
        assert self.process and self.process.stdin
        self.process.stdin.close()

    def close(self) -> None:
        if self.process:
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream:
                    stream.close()

    @property
    def left(self) -> list[str]:
        """The processes of this login that still run, found by a variable of their environment."""
        found = []
        if self.process:
            self.process.poll()  # reaps the process, as sshd does: the guard checks whether the process still exists
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"FERRY_TEST={self.token}".encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def is_gone(self) -> bool:
        """Waits until no process of this login runs; whether that came true."""
        until = time.monotonic() + PATIENCE
        while self.left and time.monotonic() < until:
            time.sleep(0.02)
        return not self.left

    def file(self, name: str) -> Path:
        """Wait until a file of this host exists; return its path."""
        until = time.monotonic() + PATIENCE
        while not (self.home / name).exists() and time.monotonic() < until:
            time.sleep(0.01)
        return self.home / name


def session(leader: int) -> list[int]:
    """Return the process ids of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[3] == str(leader):
                found.append(int(stat.parent.name))
    return found


def ended(login: Login) -> Iterator[Login]:
    yield login
    if login.process:
        for pid in session(login.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        login.close()
        login.process.wait(PATIENCE)
