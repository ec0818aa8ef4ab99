"""POSIX sh, built purely: the one place that quotes, and the frames that keep several answers apart.

A `Script` is a list of named steps that one remote command runs; `Script.read` takes the streams apart again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ctr_ferry.errors import GarbledAnswer
from ctr_ferry.text import tail


def join(argv: Iterable[str]) -> str:
    """Words to one sh command, each quoted."""
    return shlex.join(argv)


def printf(data: bytes) -> str:
    """A sh command that writes exactly ``data``, NULs included (dash, bash, busybox)."""
    text = "".join(_PRINTF.get(byte) or f"\\{byte:03o}" for byte in data)
    if text.startswith("-"):  # or it would be an option
        text = f"\\{ord('-'):03o}{text[1:]}"
    return f"printf '{_SHORT_NUL.sub(_NUL, text)}'"


_PRINTF = {byte: chr(byte) for byte in range(0x20, 0x7F) if chr(byte) not in "\\'%"} | {ord("%"): "%%"}
_NUL = r"\\0"  # archives are mostly NUL: two characters each, where no octal digit follows
_SHORT_NUL = re.compile(r"\\000(?![0-7])")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one step of a script gave back."""

    exit: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """stdout as text; bytes that are no UTF-8 are shown as such, never raised."""
        return self.stdout.decode("utf-8", "backslashreplace")

    @property
    def ok(self) -> bool:
        """Whether the step's exit status was 0."""
        return self.exit == 0


@dataclass(frozen=True, slots=True)
class Script:
    """Steps that one remote command runs in order, whatever each one's exit status.

    Attributes:
        steps: name to sh text; a name is a word without spaces.
        prologue: sh text before the first step, for functions; it must print nothing.
        cleanup: sh text that runs at the end whatever happens, a TERM in the middle included.
    """

    steps: Mapping[str, str]
    prologue: str = ""
    cleanup: str = ""

    def render(self, boundary: str) -> str:
        """The sh text.

        Args:
            boundary: a secret word that draws the frames. It is text of the functions that print it and nothing else:
                no command that a step runs has it in its words, environment or files.
        """
        lines = [
            f"section() {{ {boundary_line(boundary, '$1 $2')}; {boundary_line(boundary, '$1 $2')} >&2; }}",
            self.prologue,
        ]
        if self.cleanup:
            lines += [f"cleanup() {{\n{self.cleanup}\n}}", "trap cleanup EXIT"]
        for name, text in self.steps.items():
            lines += [f"section begin {name}", "{", text, "}", "section end $?"]
        return "\n".join(lines) + "\n"

    def read(self, boundary: str, stdout: bytes, stderr: bytes) -> dict[str, Answer]:
        """Takes the two streams apart; noise before the first frame (banner, .bashrc) is dropped.

        Raises:
            GarbledAnswer: where a step's frame is absent or cut.
        """
        out, err = _sections(boundary, stdout), _sections(boundary, stderr)
        answers = {}
        for name in self.steps:
            if name not in out or name not in err:
                raise _broken_off(name, boundary, stdout, stderr)
            status, data = out[name]
            answers[name] = Answer(status, data, err[name][1].decode("utf-8", "backslashreplace"))
        return answers

    def is_whole(self, boundary: str, stdout: bytes | bytearray, stderr: bytes | bytearray) -> bool:
        """Whether the answers of all steps are there to be read."""
        end = f"\n{boundary} end ".encode()
        return min(stdout.count(end), stderr.count(end)) >= len(self.steps)


def boundary_line(boundary: str, words: str) -> str:
    """A sh command that prints a frame; ``echo`` is a builtin of every shell, ``printf`` is not one of mksh."""
    return f'echo "\n{boundary} {words}"'


def section_start(boundary: str, step: str) -> bytes:
    """The frame before a step's output."""
    return f"\n{boundary} begin {step}\n".encode()


def with_step_headings(boundary: str, stream: bytes | bytearray) -> bytes:
    """What a host said, with ``[step]`` where a step began; the other frames are gone."""
    frame = re.compile(rb"\n%s (begin|end|heartbeat) ?([\w-]*)\n" % boundary.encode())
    return frame.sub(lambda found: b"[%s]\n" % found[2] if found[1] == b"begin" else b"", bytes(stream))


def last_lines(boundary: str, stream: bytes | bytearray) -> str:
    """The last lines of what a host said besides the frames."""
    frame = re.compile(rf"^{boundary} .*\n?", re.MULTILINE)
    return tail(frame.sub("", stream.decode("utf-8", "backslashreplace")))


def _broken_off(name: str, boundary: str, stdout: bytes, stderr: bytes) -> GarbledAnswer:
    if f"\n{boundary} ".encode() in stdout + stderr:
        return GarbledAnswer(
            f"the host's answer breaks off at {name!r}",
            detail=last_lines(boundary, stderr),
            hint="run it again; if it stays, look at the login shell's start-up files on that host",
        )
    return GarbledAnswer(
        "the login shell did not run what was asked of it",
        detail=last_lines(boundary, stdout + b"\n" + stderr),  # nologin says so on stdout
        hint="log in there by hand: the account may be one that runs nothing, or a start-up file may end the shell",
    )


def _sections(boundary: str, stream: bytes) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    name = None
    for part in stream.split(f"\n{boundary} ".encode())[1:]:
        head, _, data = part.partition(b"\n")
        word, _, value = head.decode("ascii", "replace").partition(" ")
        if word == "begin":
            name, body = value, data
        elif word == "heartbeat" and name is not None:
            body += data
        elif word == "end" and name is not None and value.isdigit():
            found[name] = (int(value), body)
            name = None
    return found
