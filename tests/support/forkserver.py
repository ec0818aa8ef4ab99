"""A server that forks `fab` from a process with all imports done, since the tests start `fab` hundreds of times.

Each order comes with three file descriptors: stdout, stderr, and the pipe for the exit status.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from select import select

CLONE = Path(__file__).resolve().parents[2]
# The modules that a run on hosts imports. None of them reads the environment when it is imported.
PRELOADED = (
    "fabric.main",
    "fabfile",
    "ctr_ferry.run.executor",
    "ctr_ferry.report.live",
    "ctr_ferry.report.render",
    "ctr_ferry.ssh.host",
)
_LIMIT = 1 << 20  # bytes of an order


class ForkServer:
    """The client of the server, which tests use."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LIMIT)
        with theirs:
            argv = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(argv, cwd=CLONE, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def run(self, words: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[int, int, str, str]:
        """Run `fab WORDS…` to its end; return exit status, most memory in KiB, stdout and stderr.

        Raises:
            subprocess.TimeoutExpired: `fab` took longer than `seconds`, and was killed; the error has its stacks.
        """
        answers, answer = os.pipe()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, os.fdopen(answers, "rb", 0) as detail:
            try:
                order = json.dumps([list(words), dict(env)]).encode()
                socket.send_fds(self._orders, [order], [out.fileno(), err.fileno(), answer])
            finally:
                os.close(answer)
            pid = int(detail.read(10))
            if not select([detail], [], [], seconds)[0]:
                os.kill(pid, signal.SIGABRT)  # faulthandler then prints the stack of every thread
                select([detail], [], [], 10)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                stacks = (err.seek(0), err.read().decode(errors="replace"))[1]
                raise subprocess.TimeoutExpired(["fab", *words], seconds, stderr=stacks) from AssertionError(stacks)
            status, peak = map(int, detail.read(20).split())
            told, complained = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
        return os.waitstatus_to_exitcode(status), peak, told, complained

    def close(self) -> None:
        """End the server."""
        self._orders.close()
        self._process.wait()


def serve(orders: socket.socket) -> None:
    """Fork for every order, until the client closes its socket."""
    for module in PRELOADED:
        import_module(module)
    gc.freeze()  # a collection in a fork need not look at these objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children that answer
    while True:
        order, files, _, _ = socket.recv_fds(orders, _LIMIT, 3)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            answer(*json.loads(order), *files)
        for file in files:
            os.close(file)


def answer(words: list[str], env: dict[str, str], out: int, err: int, detail: int) -> None:
    """Fork a `fab`; write its process id, and at its end its status and memory, to `detail`. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        with contextlib.suppress(BrokenPipeError):
            os.write(detail, b"%-10d" % pid)
            _, status, usage = os.wait4(pid, 0)
            os.write(detail, b"%-10d%-10d" % (status, usage.ru_maxrss))
        os._exit(0)
    os.close(detail)
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = words
    runpy.run_module("fabric", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    sys.path[0] = str(CLONE)
    serve(socket.socket(fileno=int(sys.argv[1])))
