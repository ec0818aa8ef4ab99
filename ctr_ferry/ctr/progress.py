"""The progress that ctr prints while it pushes or pulls, in all formats from 1.0 to 2.3. Pure.

ctr prints the same block of lines ten times a second, with colours and, at a terminal, cursor movements. `Progress`
drops these lines, so that an hour's output takes no more memory than a second's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\r")
_STATE, _STATES = re.compile(rb"[a-z]+"), re.compile(rb"[a-z ]+")
_AMOUNT = re.compile(rb"([0-9.]{1,20}) ?([KMGT]?)i?B?")  # ``1.5 MiB``, or ``1.5 Mi`` in a narrow column
_BLOB = re.compile(rb"application/vnd\.\S+ sha256:[0-9a-f]{64}\t?")  # 2.x
METER = "ferry-read:"  # our own step prints it before the number of bytes that ctr has read so far (`push_pull`)
_METER = re.compile(rb"%s ([0-9]{1,18})" % METER.encode())
_NAME_STARTS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_DRAWN = bytes(set(range(256)) - set(_NAME_STARTS))  # what ctr draws before a name
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|\((?P<short>[0-9a-f]{12})\)")
_UNITS = {b"": 1, b"K": 1 << 10, b"M": 1 << 20, b"G": 1 << 30, b"T": 1 << 40}
_DONE = ("done", "complete", "exists", "committing")
_MOVING = 1 << 10  # bytes a second; less is no progress: Go's runtime also reads some bytes to wake itself
# ctr prints the prompt on stdout without a newline, so later output follows on the same line.
_PROMPT = re.compile(rb"^Password: ", re.MULTILINE)
_LONGEST = 1 << 12  # bytes of an unfinished line that may become a line of progress
_MOST_ITEMS = 10_000  # items; an image has a hundred layers


@dataclass(frozen=True, slots=True)
class Item:
    """One blob on its way: ctr's word for its state, bytes so far, and bytes in all if known."""

    state: str
    done: int
    total: int | None


class Progress:
    """Parses ctr's output as it comes; ``sizes`` has bytes of blobs by digest, as far as they are known before.

    Attributes:
        items: every blob that ctr printed, by digest if ctr printed one.
        read: bytes that ctr has read so far, as `METER` tells where ctr prints no progress of layers; else 0.
        prompts: how often ctr has asked for the password.
        unpacking: whether all content is there and containerd unpacks it.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        self._sizes = dict(sizes or {})
        self._expected = sum(self._sizes.values())
        self._short = {digest.partition(":")[2][:12]: digest for digest in self._sizes}
        self._rest = b""
        self.items: dict[str, Item] = {}
        self.read = self._sampled = 0
        self.prompts = 0
        self.unpacking = False

    @property
    def done(self) -> int:
        """Bytes transferred so far."""
        return min(self.read, self._expected) if self.read else sum(item.done for item in self.items.values())

    @property
    def total(self) -> int | None:
        """Bytes of all items; None while the size of one is unknown."""
        if self.read:
            return self._expected
        totals = [item.total for item in self.items.values()]
        return sum(total for total in totals if total is not None) if totals and None not in totals else None

    def feed(self, data: bytes) -> bytes:
        """Takes in some output, and returns the whole lines of it that are no progress."""
        text, asked = _PROMPT.subn(b"\\g<0>\n", self._rest + data)
        self.prompts += asked
        *lines, self._rest = text.split(b"\n")
        kept = [line + b"\n" for line in lines if not self._is_progress(line)]
        if len(self._rest) > _LONGEST:
            kept.append(self._rest)
            self._rest = b""
        return b"".join(kept)

    def end(self) -> bytes:
        """Ends the output, and returns an unfinished last line if it is no progress."""
        rest, self._rest = self._rest, b""
        return b"" if self._is_progress(rest) else rest

    def _is_progress(self, line: bytes) -> bool:
        if len(line) > _LONGEST:
            return False
        bare = _ESCAPE.sub(b"", line)
        if meter := _METER.fullmatch(bare):
            before, self._sampled = self._sampled, int(meter[1])
            self.read = self._sampled if self._sampled - before >= _MOVING else self.read
            return True
        if bar := _bar(bare):
            self._take(*bar)
            return True
        if bare.startswith(b"unpacking "):
            self.unpacking = True
        tree = _tree(bare)
        if tree and tree[1] == "already exists":
            self._take(tree[0], "exists")
        return bool(tree or _BLOB.fullmatch(bare) or _is_foot(bare)) or (bare == b"" and line != b"")

    def _take(self, name: str, state: str, done: int = 0, total: int | None = None) -> None:
        if state in ("resolving", "resolved"):  # a state of the image's name, not of a blob
            return
        found = _DIGEST.search(name)
        key = name if not found else self._short.get(found["short"], name) if found["short"] else found[0]
        before = self.items.get(key)
        if not before and len(self.items) >= _MOST_ITEMS:
            return
        size = self._sizes.get(key) or (total if total is not None else before.total if before else None)
        self.items[key] = Item(state, size if size and state in _DONE else min(done, size or done), size)


def _bar(line: bytes) -> tuple[str, str, int, int | None] | None:
    """Parses ``NAME: STATE |++--| 1.0 MiB/2.0 MiB``: name, state, bytes so far, bytes in all; None for another line."""
    head, _, rest = line.partition(b"|")
    bar, end, amounts = rest.partition(b"|")
    words = head.rsplit(None, 1)
    if not (end and not bar.strip(b"+-") and head[-1:].isspace() and len(words) == 2 and _STATE.fullmatch(words[1])):
        return None
    name = words[0].lstrip(_DRAWN).removesuffix(b":")
    done, both, total = amounts.strip().partition(b"/")
    if not name or (done and not (both and _AMOUNT.fullmatch(done) and _AMOUNT.fullmatch(total))):
        return None
    return name.decode("utf-8", "replace"), words[1].decode(), _bytes(done), _bytes(total) if both else None


def _tree(line: bytes) -> tuple[str, str] | None:
    """Parses a line of 2.x, ``└──NAME<tab>STATE<tab>``: name and state; None for another line."""
    name, tab, state = line.lstrip(_DRAWN).removesuffix(b"\t").partition(b"\t")
    return (name.decode("utf-8", "replace"), state.decode()) if tab and name and _STATES.fullmatch(state) else None


def _is_foot(line: bytes) -> bool:
    before, found, behind = line.partition(b"elapsed: ")
    return bool(found) and b"total: " in behind and (not before.strip() or before.endswith(b"\t"))


def _bytes(text: bytes) -> int:
    match = _AMOUNT.fullmatch(text)
    try:
        return int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except ValueError:
        return 0
