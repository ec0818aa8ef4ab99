"""POSIX sh as values: quoting, which no other file does, and scripts of named steps with their answers. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ctr_ferry.errors import GarbledAnswer
from ctr_ferry.text import tail

_MOST_PARTS = 100_000  # boundary lines of one answer; a heartbeat comes every few seconds


def join(argv: Iterable[str]) -> str:
    """One sh command made of these words, each of them quoted."""
    return shlex.join(argv)


def printf(data: bytes) -> str:
    """A sh command that writes exactly ``data``, NULs included (tried with dash, bash and busybox)."""
    text = "".join(_PRINTF.get(byte) or f"\\{byte:03o}" for byte in data)
    if text.startswith("-"):  # printf would take it for an option
        text = f"\\{ord('-'):03o}{text[1:]}"
    return f"printf '{_SHORT_NUL.sub(_NUL, text)}'"


_PRINTF = {byte: chr(byte) for byte in range(0x20, 0x7F) if chr(byte) not in "\\'%"} | {ord("%"): "%%"}
_NUL = r"\\0"  # archives are mostly NUL: two characters for each, where no octal digit follows
_SHORT_NUL = re.compile(r"\\000(?![0-7])")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one step of a script gave back: its exit status and its output."""

    exit: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Stdout as text. Bytes that are not UTF-8 are escaped; they raise nothing."""
        return self.stdout.decode("utf-8", "backslashreplace")

    @property
    def ok(self) -> bool:
        """Whether the step's exit status was 0."""
        return self.exit == 0


@dataclass(frozen=True, slots=True)
class Script:
    """Steps that one remote command runs in order. A step runs whatever the exit statuses before it were.

    Attributes:
        steps: sh text by name. A name is a word without spaces.
        prologue: sh text before the first step, to define functions. It must print nothing.
        cleanup: sh text that runs at the end, also after a TERM in the middle.
    """

    steps: Mapping[str, str]
    prologue: str = ""
    cleanup: str = ""

    def render(self, boundary: str) -> str:
        """The sh text; the boundary is a secret word that separates the sections of the output.

        Only the functions that print it contain it: no command of a step has it in its arguments, environment or files.
        """
        line = boundary_line(boundary, "$1 $2")
        lines = [f"section() {{ {line}; {line} >&2; }}", self.prologue]
        if self.cleanup:
            lines += [f"cleanup() {{\n{self.cleanup}\n}}", "trap cleanup EXIT"]
        for name, text in self.steps.items():
            lines += [f"section begin {name}", "{", text, "}", "section end $?"]
        return "\n".join(lines) + "\n"

    def read(self, boundary: str, stdout: bytes, stderr: bytes) -> dict[str, Answer]:
        """Returns the answers by the name of their step; raises GarbledAnswer if one is missing or was cut off.

        Whatever stands before the first section, such as a banner, is dropped.
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
        """Whether the answers of all steps have come."""
        end = f"\n{boundary} end ".encode()
        return min(stdout.count(end), stderr.count(end)) >= len(self.steps)


def boundary_line(boundary: str, words: str) -> str:
    """A sh command that prints a line with the boundary and ``words``."""
    # `echo` is a builtin of every shell. mksh has no builtin `printf`, so other users would see its arguments.
    return f'echo "\n{boundary} {words}"'


def section_start(boundary: str, step: str) -> bytes:
    """The line before a step's output."""
    return f"\n{boundary} begin {step}\n".encode()


def with_step_headings(boundary: str, stream: bytes | bytearray) -> bytes:
    """The output of a host for people to read: ``[step]`` where a step's section begins, no other boundary lines."""
    line = re.compile(rb"\n%s (begin|end|heartbeat) ?([\w-]*)\n" % boundary.encode())
    return line.sub(lambda found: b"[%s]\n" % found[2] if found[1] == b"begin" else b"", bytes(stream))


def last_lines(boundary: str, stream: bytes | bytearray) -> str:
    """The last lines of a host's output, without boundary lines."""
    line = re.compile(rf"^{boundary} .*\n?", re.MULTILINE)
    return tail(line.sub("", stream.decode("utf-8", "backslashreplace")))


def _broken_off(name: str, boundary: str, stdout: bytes, stderr: bytes) -> GarbledAnswer:
    if f"\n{boundary} ".encode() in stdout + stderr:
        return GarbledAnswer(
            f"the host's answer breaks off at step {name!r}",
            detail=last_lines(boundary, stderr),
            hint="where this stays, check the login shell's start-up files on that host; first run the command again",
        )
    return GarbledAnswer(
        "the login shell did not run the script that was sent to it",
        detail=last_lines(boundary, stdout + b"\n" + stderr),  # nologin prints its reason on stdout
        hint="log in there by hand: the account may not allow commands, or a start-up file may end the shell",
    )


def _sections(boundary: str, stream: bytes) -> dict[str, tuple[int, bytes]]:
    """Exit status and output by step, for each section that has both its first and its last line."""
    found: dict[str, tuple[int, bytes]] = {}
    name, body = None, [b""]
    parts = stream.split(f"\n{boundary} ".encode(), _MOST_PARTS)[1:]
    if len(parts) == _MOST_PARTS:
        raise GarbledAnswer(
            f"the host's answer has {_MOST_PARTS} boundary lines or more",
            hint="find out which process prints them: check what runs on that host as root",
        )
    for part in parts:
        head, _, data = part.partition(b"\n")
        word, _, value = head.decode("ascii", "replace").partition(" ")
        if word == "begin":
            name, body = value, [data]
        elif word == "heartbeat" and name is not None:
            body.append(data)
        elif word == "end" and name is not None and value.isdigit():
            found[name] = (int(value), b"".join(body))
            name = None
    return found
