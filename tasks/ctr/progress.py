"""What ctr prints while it pushes or pulls, in all its formats from 1.0 to 2.1: bytes so far, of how many. Pure.

The same block of lines comes ten times a second, with colours, and on a terminal with cursor movements: it is taken
out of what is kept, so that an hour's push is as small as a second's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\r")
_BAR = re.compile(
    rb"\W*(?P<name>\S.*?):?\s+(?P<state>[a-z]+)\s+"
    rb"\|[+-]*\|\s*(?:(?P<done>[\d.]+ ?\w*)/(?P<total>[\d.]+ ?\w*))?\s*"
)
_FOOT = re.compile(rb"\s*(?:.*\t)?elapsed: .*total: .*")
_TREE = re.compile(rb"\W*(?P<name>[^\t]+)\t(?P<state>[a-z ]+)\t?|application/vnd\.\S+ sha256:[0-9a-f]{64}\t?")  # 2.x
_METER = re.compile(rb"ferry-read: (\d+)")  # transfer's own
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|\((?P<short>[0-9a-f]{12})\)")
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DONE = ("done", "complete", "exists", "committing")
_MOVING = 1 << 10  # bytes a second; Go's runtime wakes itself through a pipe, some bytes each time
_PROMPT = re.compile(rb"^Password: ", re.MULTILINE)  # on stdout, without a newline: what comes next is on its line
_LONGEST = 1 << 12  # bytes of a line that may still become one of progress


@dataclass(frozen=True, slots=True)
class Item:
    """One blob on its way."""

    state: str
    done: int
    total: int | None


class Progress:
    """Reads ctr's output as it comes.

    Args:
        sizes: of the blobs, by digest, as far as they are known before.

    Attributes:
        items: every blob that was told of, by digest where it has one.
        read: bytes that ctr has read so far, where it is measured because it tells nothing of layers; else 0.
        prompts: how often ctr has asked for the password.
        unpacking: whether all is there, and containerd is at work on it.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        self._sizes = dict(sizes or {})
        self._short = {digest.partition(":")[2][:12]: digest for digest in self._sizes}
        self._rest = b""
        self.items: dict[str, Item] = {}
        self.read = self._sampled = 0
        self.prompts = 0
        self.unpacking = False

    @property
    def done(self) -> int:
        """Bytes so far."""
        if self.read:
            return min(self.read, sum(self._sizes.values()))
        return sum(item.done for item in self.items.values())

    @property
    def total(self) -> int | None:
        """Bytes of all that was told of, where all their sizes are known."""
        if self.read:
            return sum(self._sizes.values())
        totals = [item.total for item in self.items.values()]
        return sum(total for total in totals if total is not None) if totals and None not in totals else None

    def feed(self, data: bytes) -> bytes:
        """Takes in what was printed.

        Returns:
            What of it is no progress, whole lines.
        """
        text, asked = _PROMPT.subn(b"\\g<0>\n", self._rest + data)
        self.prompts += asked
        *lines, self._rest = text.split(b"\n")
        kept = [line + b"\n" for line in lines if not self._is_progress(line)]
        if len(self._rest) > _LONGEST:
            kept.append(self._rest)
            self._rest = b""
        return b"".join(kept)

    def end(self) -> bytes:
        """What the last line was, where no newline ended it."""
        rest, self._rest = self._rest, b""
        return b"" if self._is_progress(rest) else rest

    def _is_progress(self, line: bytes) -> bool:
        bare = _ESCAPE.sub(b"", line)
        if meter := _METER.fullmatch(bare):
            before, self._sampled = self._sampled, int(meter[1])
            self.read = self._sampled if self._sampled - before >= _MOVING else self.read
            return True
        if bar := _BAR.fullmatch(bare):
            done, total = (bar[name].decode() if bar[name] else None for name in ("done", "total"))
            self._take(bar["name"].decode("utf-8", "replace"), bar["state"].decode(), done, total)
            return True
        if bare.startswith(b"unpacking "):
            self.unpacking = True
        tree = _TREE.fullmatch(bare)
        if tree and tree["state"] == b"already exists":
            self._take(tree["name"].decode("utf-8", "replace"), "exists", None, None)
        return bool(tree or _FOOT.fullmatch(bare)) or (bare == b"" and line != b"")

    def _take(self, name: str, state: str, done: str | None, total: str | None) -> None:
        if state in ("resolving", "resolved"):  # the name itself
            return
        found = _DIGEST.search(name)
        key = name if not found else self._short.get(found["short"], name) if found["short"] else found[0]
        before = self.items.get(key)
        size = self._sizes.get(key) or (_bytes(total) if total else before.total if before else None)
        part = min(_bytes(done), size or _bytes(done)) if done else 0
        finished = state in _DONE and size is not None
        self.items[key] = Item(state, size if finished and size else part, size)


def _bytes(text: str) -> int:
    """A size as ctr prints it: ``1.5 MiB``, or ``1.5 Mi`` where its column is narrow."""
    match = re.fullmatch(r"([\d.]+) ?([KMGT]?)i?B?", text)
    if not match:
        return 0
    try:
        return int(float(match[1]) * _UNITS[f"{match[2]}iB" if match[2] else ""])
    except ValueError:
        return 0
