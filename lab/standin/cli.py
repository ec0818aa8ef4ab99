"""The stand-in's command line. The stand-in answers it, changes it for the real ctr, or becomes the real ctr."""

from __future__ import annotations

import sys

from lab.standin.real import Beneath, Rules, fail, in_old_words, refuse, say
from lab.standin.words import UsageError, commands_of, flags_first, flags_of, help_text, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

VERSION = "v1.2.6"
CLIENT = f"Client:\n  Version:  {VERSION}\n  Revision: \n\n"
SERVER = f"Server:\n  Version:  {VERSION}\n  Revision: \n"

NOT_COVERED = {
    "content edit",
    "content fetch",
    "content fetch-object",
    "content push-object",
    "tasks checkpoint",
}
"""Commands of 1.2.6 that the stand-in knows and refuses."""

NOT_COVERED_FLAGS = {
    "containers create": {"checkpoint"},
    "images export": {"manifest", "manifest-type"},
    "run": {"checkpoint", "isolated"},
}
"""Flags of 1.2.6 that 1.4 lacks. The stand-in refuses them."""


class Line:
    """A command of 1.2.6 with its flags and its other words."""

    def __init__(self, name: str, args: list[str]) -> None:
        self.name = name
        self.flags, self.words = _flags(name.split(" "), flags_first(args))
        self.values = dict(self.flags)

    def real(self, flags: list[tuple[str, str]] | None = None) -> list[str]:
        """Return the command line for the real ctr: flags first, since it does not reorder words as 1.2.6 does."""
        given = self.flags if flags is None else flags
        return [*self.name.split(" "), *(f"--{name}={value}" for name, value in given), "--", *self.words]


def main(args: list[str]) -> NoReturn:
    """Run one command line as ctr 1.2.6 does."""
    given, rest = _flags([], args)
    values = dict(given)
    if "version" in values and "help" not in values:
        say(1, f"ctr github.com/containerd/containerd {VERSION}\n")
        sys.exit(0)
    if "help" in values or not rest or rest[0] in ("help", "h"):
        _show_help([] if "help" in values else rest[1:])
    command = [_command([], rest[0])]
    rest = rest[1:]
    if commands_of(help_text(*command) or ""):
        given, rest = _flags(command, rest)
        if given or not rest or rest[0] in ("help", "h"):
            _show_help(command)
        command.append(_command(command, rest[0]))
        rest = rest[1:]
    _run(Beneath(values), Line(" ".join(command), rest))


def _run(ctr: Beneath, line: Line) -> NoReturn:
    """Run one command. Its words and its flags are known to 1.2.6."""
    if "help" in line.values:
        _show_help(line.name.split(" "))
    if line.name in NOT_COVERED:
        refuse(line.name)
    for flag in sorted(NOT_COVERED_FLAGS.get(line.name, set()) & line.values.keys()):
        refuse(f"{line.name} --{flag}")
    if line.name == "images export" and len(line.words) < 2:
        fail("ctr: please provide both an output filename and an image reference to export")
    if line.name == "version":
        say(1, CLIENT)
    _refuse_label_filter(line)
    ctr.dial()
    if line.name in OWN and "quiet" not in line.values:
        OWN[line.name](ctr, line)
    ctr.become(line.real())


def _flags(command: list[str], args: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return flags and other words of a command; end with 1.2.6's usage error if they are wrong."""
    text = help_text(*command) or refuse(" ".join(command))
    try:
        return parse(args, flags_of(text))
    except UsageError as error:
        leaf = bool(command) and not commands_of(text)
        say(1, f"Incorrect Usage{':' if leaf else '.'} {error}\n\n{text}")
        fail(f"ctr: {error}")


def _command(group: list[str], word: str) -> str:
    """Return a command's first name; end with 1.2.6's error if there is no such command."""
    name = commands_of(help_text(*group) or "").get(word)
    return name or fail(f"No help topic for '{word}'", 3)


def _show_help(words: list[str]) -> NoReturn:
    """Print the help of a command, for `--help`, `help` and `help COMMAND`."""
    command: list[str] = []
    for word in words:
        command.append(_command(command, word))
    say(1, help_text(*command) or refuse(" ".join(command)))
    sys.exit(0)


def _version(ctr: Beneath, _line: Line) -> NoReturn:
    status, _, errors = ctr.answer(["version"])
    if status:
        fail(errors.rstrip("\n"), status)
    say(1, SERVER)
    sys.exit(0)


def _logging(ctr: Beneath, line: Line) -> NoReturn:
    """Run a command that logs its errors and goes on. Only the form of its log lines differs."""
    _reworded(ctr, line.real(), [])


def _content_table(ctr: Beneath, line: Line) -> NoReturn:
    """Run `content list` or `content active`. Sizes, labels of children and widths of columns differ."""
    from lab.standin.tables import content_table  # noqa: PLC0415

    status, out, errors = ctr.answer(line.real())
    say(1, content_table(out))
    say(2, in_old_words(errors, []))
    sys.exit(status)


def _import(ctr: Beneath, line: Line) -> NoReturn:
    from lab.standin.archives import import_archive  # noqa: PLC0415

    import_archive(ctr, line.flags, line.words[0] if line.words else "")


def _export(ctr: Beneath, line: Line) -> NoReturn:
    from lab.standin.archives import export_archive  # noqa: PLC0415

    export_archive(ctr, line.words[0], line.words[1], line.values.get("oci-ref-name", ""))


def _registry(ctr: Beneath, line: Line) -> NoReturn:
    """Run push or pull. On 1.2.6, -k has no effect, `localhost:` means http, and some errors have other words."""
    reference = line.words[0] if line.words else ""
    host, slash, path = reference.partition("/")
    if reference and not slash:
        refuse(f"{line.name} of a name without a host (1.2.6 panics)")
    flags = [flag for flag in line.flags if flag[0] not in ("skip-verify", "plain-http")]
    http = "plain-http" in line.values or host.startswith("localhost:")
    if http:
        flags.append(("plain-http", "true"))
    repository = path.partition("@")[0].rpartition(":")[0] or path
    url = f"{'http' if http else 'https'}://{host}/v2/{repository}"
    pulling = r"pulling from host \S+ failed with status code \[(\w+) (\S+)\]"
    rules = [
        (r"unexpected status: (?=\d)", "unexpected response: "),
        (pulling, rf"unexpected status code {url}/\1/\2"),
        (r'(failed to resolve reference "([^"]+)": \2): not found', r"\1 not found"),
    ]
    _reworded(ctr, line.real(flags), rules)


def _reworded(ctr: Beneath, args: list[str], rules: Rules) -> NoReturn:
    """Run the real command with this process's stdin and stdout, and put its stderr into 1.2.6's words."""
    status, errors = ctr.start(args).end()
    say(2, in_old_words(errors, rules))
    sys.exit(status)


def _refuse_label_filter(line: Line) -> None:
    """Refuse a filter on labels of a blob's children: 1.2.6 numbers these labels, 1.4 names them."""
    if line.name == "content list" and any("gc.ref.content" in word for word in line.words):
        refuse("content list with a filter on gc.ref.content labels")


OWN = {
    "containers delete": _logging,
    "content active": _content_table,
    "content delete": _logging,
    "content list": _content_table,
    "images check": _logging,
    "images export": _export,
    "images import": _import,
    "images list": _logging,
    "images pull": _registry,
    "images push": _registry,
    "images remove": _logging,
    "namespaces remove": _logging,
    "snapshots remove": _logging,
    "tasks delete": _logging,
    "version": _version,
}
