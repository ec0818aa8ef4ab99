"""The JSON Schemas of docs/schema, made from the types of the results.

`python tests/support/schemas.py` writes them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, is_typeddict

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/schema"
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import fabfile  # noqa: E402
from ctr_ferry.delivery.results import DeliverResult  # noqa: E402
from ctr_ferry.errors import ErrorData  # noqa: E402
from ctr_ferry.images.retag import RetagResult  # noqa: E402
from ctr_ferry.registry.results import PulledImage, PushedImage, TransferSetResult  # noqa: E402
from ctr_ferry.registry.status import RegistryStatus  # noqa: E402
from ctr_ferry.report.documents import CompletionData, InventoryData, RunData, RunsData, Warned  # noqa: E402
from ctr_ferry.report.outcome import Status  # noqa: E402
from ctr_ferry.report.render import SCHEMA  # noqa: E402
from ctr_ferry.run.command import Command, Kind  # noqa: E402
from ctr_ferry.transfer.archive_writer import SavedImage  # noqa: E402
from ctr_ferry.transfer.copy_result import CopyResult  # noqa: E402
from tasks import check, doctor, find, images, needs, registry, remove, run, save  # noqa: E402

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pulls(TransferSetResult):
    """What a pull came to on one host; an image that was not tried is ``skipped``."""

    images: tuple[PulledImage, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pushes(TransferSetResult):
    """What a push came to on one host; an image that was not tried is ``skipped``."""

    images: tuple[PushedImage, ...]


RESULTS: dict[str, type] = {  # what each command returns
    "apply": DeliverResult,
    "check": check.ChecksResult,
    "completion": CompletionData,
    "copy": CopyResult,
    "deliver": DeliverResult,
    "doctor": doctor.DoctorResult,
    "find": find.FindResult,
    "hosts": InventoryData,
    "images": images.ImagesResult,
    "load": CopyResult,
    "needs": needs.NeedsResult,
    "pull": Pulls,
    "push": Pushes,
    "registry": registry.RegistryResult,
    "remove": remove.RemoveResult,
    "retag": RetagResult,
    "run": run.RunResult,
    "runs": RunsData,
    "save": save.SaveResult,
    "show": RunData,
}
COMMANDS: dict[str, Command] = {name: getattr(fabfile, name) for name in fabfile.__all__}
_LATE = {"RegistryStatus": RegistryStatus, "SavedImage": SavedImage}  # imported for annotations only
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
# What a field means wherever it stands, unless the type says more.
_WORDS = {
    "absent": "What was asked for and is not there.",
    "asked": "How the image was asked for.",
    "by": "What needs the image: container, sandbox, manifest.",
    "file": "The path of the archive on the control machine.",
    "hint": "What to do; empty where there is nothing to do.",
    "socket": "The socket of the containerd that has it.",
    "stderr": "What it printed on stderr.",
    "stdout": "What it printed on stdout.",
    "to_namespace": "The namespace of the new names.",
    "unread": "The sockets and namespaces that could not be read, and why.",
    "arguments": "The options of the command, by name.",
    "bytes": "How many bytes were, or would be, moved.",
    "check": "ctr's words on which blobs are there, such as complete (4/4).",
    "command": "The name of the command.",
    "complete": "Whether all blobs that the host's platform needs are there.",
    "containerd": "The version of containerd.",
    "ctr": "The version of ctr.",
    "digest": "What the name points at; empty where that is not known.",
    "dry_run": "Whether nothing was to be done.",
    "error": "What is wrong, or why it was not done; null where nothing is.",
    "exit": "The exit status.",
    "findings": "What was found, each thing that was checked once.",
    "host": "The host, as the inventory or -H names it.",
    "hosts": "The hosts.",
    "images": "The images, each once.",
    "kind": "The name of the error that says what is wrong; null where nothing is.",
    "message": "What is there or what happened, in one sentence.",
    "method": "How it was done, or would be; empty where there was nothing to do.",
    "namespace": "The namespace of containerd.",
    "notes": "What to know besides; remarks for people.",
    "outcomes": "What the command did on each host.",
    "places": "The places, each once.",
    "platforms": "The platforms, such as linux/amd64; empty where that is not known.",
    "previous_digest": "What the name pointed at before; empty for a new name.",
    "reference": "The image's name; in results of a command that gives names, the new one.",
    "registries": "The registries, each once.",
    "registry": "The registry: host and port, as in image names.",
    "scheme": "http or https.",
    "seconds": "How long it took.",
    "sha256": "Of the file, in hex; empty in a dry run.",
    "size": "Its size in bytes; null where that is not known.",
    "started": "When it started: UTC, ISO 8601.",
    "status": "How it ended.",
    "unpacked": "Whether the host's snapshotter has it unpacked.",
    "warnings": "What to know of several hosts.",
}


def described(text: str) -> str:
    """Return a piece of a docstring as a sentence of Markdown's code marks and no others."""
    words = " ".join(text.split()).replace("``", "`")
    return f"{words[:1].upper()}{words[1:]}" if words else ""


def attributes(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of its attributes."""
    found: dict[str, str] = {}
    for base in kind.__mro__:
        _, _, block = (base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        block = block.partition("\n\n")[0]
        for names, text in re.findall(r"^ {8}([a-z_0-9, ]+): (.+(?:\n {12}.+)*)", block, re.MULTILINE):
            for name in names.split(", "):
                found.setdefault(name, described(text))
    return found


class Maker:
    """Makes the schema of one document; `definitions` are the types that it refers to.

    Args:
        closed: whether an object may have no property that the schema does not name, as in tests.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self.closed, self.definitions = closed, dict[str, Any]()

    def of(self, kind: Any) -> dict[str, Any]:  # noqa: PLR0911
        """Return the schema of a type.

        Raises:
            TypeError: the type says nothing about the JSON.
        """
        if kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.NotRequired:
            return self.of(arguments[0])
        if origin in (typing.Union, types.UnionType):
            schemas = [self.of(each) for each in arguments]
            if all(set(each) == {"type"} for each in schemas):
                return {"type": [each["type"] for each in schemas]}
            return {"anyOf": schemas}
        if origin in (tuple, list, Sequence) or (isinstance(origin, type) and issubclass(origin, Sequence)):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in (dict, Mapping):
            return {
                "type": "object",
                **({} if arguments[1] is Any else {"additionalProperties": self.of(arguments[1])}),
            }
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [each.value for each in kind]}
        if dataclasses.is_dataclass(kind) or is_typeddict(kind):
            return self._refer(kind)
        raise TypeError(f"{kind} says nothing about the JSON")

    def _refer(self, kind: Any) -> dict[str, Any]:
        if kind.__name__ not in self.definitions:
            self.definitions[kind.__name__] = {}  # it may refer to itself
            hints = typing.get_type_hints(kind, localns=_LATE, include_extras=True)
            names = [each.name for each in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
            optional = [name for name in names if typing.get_origin(hints[name]) is typing.NotRequired]
            known = attributes(kind)
            properties = {name: self.of(hints[name]) | self._text(kind, name, known) for name in names}
            summary = described((kind.__doc__ or "").partition("\n\n")[0])
            required = [name for name in names if name not in optional]
            self.definitions[kind.__name__] = {"description": summary, **self.object(properties, required)}
        return {"$ref": f"#/$defs/{kind.__name__}"}

    def _text(self, kind: Any, name: str, known: Mapping[str, str]) -> dict[str, str]:
        if not (text := known.get(name) or _WORDS.get(name)):
            raise TypeError(f"{kind.__name__}.{name} is not described")
        return {"description": text}

    def object(self, properties: Mapping[str, Any], required: Iterable[str]) -> dict[str, Any]:
        """Return the schema of an object."""
        closed = {"additionalProperties": False} if self.closed else {}
        return {"type": "object", "properties": dict(properties), "required": list(required), **closed}


def _options(command: Command) -> dict[str, Any]:
    """Return the schemas of a command's options, as `arguments` has them."""
    found = {}
    for argument in command.get_arguments():
        kind = {list: {"type": "array", "items": {"type": "string"}}, bool: {"type": "boolean"}}.get(argument.kind)
        text = described(argument.help or argument.name)
        found[argument.attr_name.rstrip("_") if argument.attr_name else argument.name.rstrip("_")] = (
            kind or {"type": ["string", "null"]}
        ) | {"description": text}
    return found


def of_command(name: str, *, closed: bool = False) -> dict[str, Any]:
    """Return the schema of what one command adds to `commands`."""
    command, make = COMMANDS[name], Maker(closed=closed)
    result = make.of(RESULTS[name])
    options = _options(command)
    error = make.of(ErrorData) | {"description": "Why the command as a whole failed; absent where it did not."}
    properties: dict[str, Any] = {
        "command": {"const": name, "description": _WORDS["command"]},
        "arguments": make.object(options, ()) | {"description": _WORDS["arguments"]},
    }
    if command.kind is Kind.CONTROL_MACHINE:
        text = "What the command shows; absent where it failed."
        properties |= {"result": result | {"description": text}, "error": error}
        required = ["command", "arguments"]
    else:
        outcome = {
            "host": {"type": "string", "description": _WORDS["host"]},
            "status": make.of(Status) | {"description": _WORDS["status"]},
            "seconds": {"type": "number", "description": _WORDS["seconds"]},
            "result": result | {"description": "What was found or done; absent where the host did not get so far."},
            "error": make.of(ErrorData) | {"description": "Why it failed on the host; absent where it did not."},
        }
        outcomes = {"type": "array", "items": make.object(outcome, ["host", "status", "seconds"])}
        properties |= {
            "dry_run": {"type": "boolean", "description": _WORDS["dry_run"]},
            "outcomes": outcomes | {"description": _WORDS["outcomes"]},
            "warnings": make.of(list[Warned]) | {"description": _WORDS["warnings"]},
            "error": error,
        }
        required = ["command", "arguments", "dry_run", "outcomes", "warnings"]
    head = {
        "$schema": DIALECT,
        "$id": f"{name}.json",
        "title": f"ctr-ferry {name}",
        "description": described(command.__doc__ or ""),
    }
    return {**head, **make.object(properties, required), "$defs": make.definitions}


def of_document(*, closed: bool = False) -> dict[str, Any]:
    """Return the schema of the whole document."""
    make = Maker(closed=closed)
    properties = {
        "schema": {"const": SCHEMA, "description": "The version of this form: a removed or renamed field makes it 2."},
        "ctr_ferry": {"type": "string", "description": "The version of ctr-ferry."},
        "run": {
            "type": ["string", "null"],
            "description": "The run's id, as `show --run` takes it; null without a run.",
        },
        "exit": {"type": "integer", "description": "The exit status of the program."},
        "commands": {
            "type": "array",
            "items": {"anyOf": [{"$ref": f"{name}.json"} for name in RESULTS]},
            "description": "The commands that began, in their order.",
        },
        "error": make.of(ErrorData) | {"description": "Why nothing was started; absent where something was."},
    }
    required = [name for name in properties if name != "error"]
    text = "What a command line with --json prints on stdout: one document, whatever happens."
    head = {"$schema": DIALECT, "$id": "document.json", "title": "ctr-ferry --json", "description": text}
    return {**head, **make.object(properties, required), "$defs": make.definitions}


def files() -> dict[str, str]:
    """Return the files of docs/schema by name."""
    schemas = {"document": of_document(), **{name: of_command(name) for name in RESULTS}}
    return {f"{name}.json": f"{json.dumps(schema, indent=2)}\n" for name, schema in schemas.items()}


def loaded(name: str) -> dict[str, Any]:
    """Return a schema as docs/schema has it."""
    schema: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return schema


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in files().items():
        (FOLDER / file).write_text(text)
