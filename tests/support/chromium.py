"""A headless Chromium, Debian's, unpacked in the lab's cache; it is driven over two pipes, so it needs no package."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import debian
from lab.fleet import CACHE

PATIENCE = 60.0  # seconds for one answer, or for a page to load
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
# The program reads files of chromium-common beside itself, so the tree has that package even where the machine has it.
PACKAGES = ["chromium", "chromium-common", "fonts-dejavu-core", "fonts-wqy-microhei"]
# Latin letters and Chinese ones, whatever fonts the machine has.
FONTS = """<fontconfig><dir>{}/usr/share/fonts</dir><cachedir>{}</cachedir><alias><family>monospace</family>
<prefer><family>DejaVu Sans Mono</family></prefer></alias></fontconfig>"""


class Browser:
    """One tab of Chromium.

    Attributes:
        events: what the tab has told since `load` began, in order: method and parameters.
    """

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers, self._last, self._rest = orders, answers, 0, b""
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{part}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol; return its result; raise RuntimeError."""
        self._last += 1
        order = {"id": self._last, "method": method, "params": parameters}
        order |= {"sessionId": self._session} if self._session else {}
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        for message in self._messages():
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result
        raise RuntimeError(f"{method}: no answer")

    def load(self, url: str) -> None:
        """Open a page, and wait until it and all that it asks for has come."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        if not any(name == "Page.loadEventFired" for name, _ in self.events):
            for message in self._messages():
                if message.get("method") == "Page.loadEventFired":
                    return
            raise RuntimeError(f"{url} did not load")

    def ask(self, script: str) -> Any:
        """Return the value of a JavaScript expression on the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def width(self, pixels: int) -> None:
        """Let the screen be so many CSS pixels wide."""
        size = {"width": pixels, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages as they come, and keep the events among them."""
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            while b"\0" in self._rest:
                raw, _, self._rest = self._rest.partition(b"\0")
                message = json.loads(raw)
                if "method" in message:
                    self.events.append((message["method"], message["params"]))
                yield message
            if select.select([self._answers], [], [], left)[0]:
                if not (part := os.read(self._answers, 1 << 20)):
                    raise RuntimeError("Chromium has ended")
                self._rest += part


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile, for the block; raise debian.Unavailable."""
    tree = debian.unpacked(PACKAGES, CACHE, whole=True)
    libraries = [str(path) for path in (tree / "usr/lib").glob("*-linux-gnu")]
    path = ":".join([*libraries, *(f"{folder}/pulseaudio" for folder in libraries)])
    fonts = profile / "fonts.conf"
    fonts.write_text(FONTS.format(tree, profile))
    env = {**os.environ, "LD_LIBRARY_PATH": path, "HOME": str(profile), "FONTCONFIG_FILE": str(fonts)}
    program = str(tree / "usr/lib/chromium/chromium")
    (reads, orders), (answers, writes) = os.pipe(), os.pipe()
    given = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (reads, writes)]  # so that 3 and 4 are free
    log = os.open(profile / "chromium.log", os.O_WRONLY | os.O_CREAT)
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in zip((log, log, *given), (1, 2, 3, 4), strict=True)]
    argv = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    pid = os.posix_spawn(program, argv, env, file_actions=actions)
    for fd in (log, reads, writes, *given):
        os.close(fd)
    try:
        yield Browser(orders, answers)
    finally:
        os.close(orders)  # Chromium ends with this pipe
        os.close(answers)
        _wait(pid)


def _wait(pid: int) -> None:
    """Wait until Chromium has ended; kill it if it does not end by itself."""
    deadline = time.monotonic() + 10
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.05)
