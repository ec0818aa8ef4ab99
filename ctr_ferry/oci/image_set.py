"""Sets of images: the references that a list, or YAML of Hauler, kubeadm and Kubernetes, names. Pure.

A list has one reference on a line, as ``kubeadm config images list``, k3s, RKE2 and ``talosctl image default`` print.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr_ferry.errors import BadReference, UsageError
from ctr_ferry.oci.reference import Reference, is_digest

if TYPE_CHECKING:
    import yaml

_YAML = re.compile(r"---|%YAML|[\[{]|[\"']?[A-Za-z]\w*[\"']?:(?:\s|$)")  # how the first line that counts begins
_MOST_SHOWN = 10  # wrong lines that a message has
_DEEPEST = 200  # levels of YAML; a custom resource has about 20, and the time of libyaml grows with their square
_NOTHING = ("", "~", "null", "Null", "NULL")  # YAML 1.2.2, section 10.3.2
_IMAGES = "Images"  # the kind of Hauler's manifest, and of what kubeadm prints with --output yaml or json


def parse(text: str, file: str) -> tuple[str, ...]:
    """Returns the references of a set, as they are written there, each once.

    Args:
        text: the set: a list with ``#`` comments, or YAML, of which JSON is a part.
        file: its name for messages.

    Raises:
        UsageError: the set names no image, or has wrong lines; each of these is told with its line.
    """
    references: dict[str, str] = {}
    wrong = []
    for line, word in _of_yaml(text, file) if _is_yaml(text) else _of_lines(text):
        try:
            references.setdefault(full_name(word), word)
        except BadReference as error:
            wrong.append(f"{file}:{line}: {error.message}")
    if wrong:
        more = [f"… and {len(wrong) - _MOST_SHOWN} more"] if len(wrong) > _MOST_SHOWN else []
        raise UsageError(
            f"the set {file} has {len(wrong)} wrong line{'s' * (len(wrong) != 1)}",
            detail="\n".join([*wrong[:_MOST_SHOWN], *more]),
            hint="correct these lines, or put # before them, then run the command again",
        )
    if not references:
        raise UsageError(
            f"the set {file} names no image",
            hint="write one reference on each line, or give YAML with image: keys; then run the command again",
        )
    return tuple(references.values())


def full_name(text: str) -> str:
    """Returns the name that containerd has for a reference; raises BadReference for any other text."""
    if is_digest(text):
        raise BadReference(f"{text!r} is no image reference: it is a digest without a repository")
    return str(Reference.parse(text).or_latest)


def _is_yaml(text: str) -> bool:
    lines = (line.strip() for line in text.split("\n"))
    return _YAML.match(next((line for line in lines if line and not line.startswith("#")), "")) is not None


def _of_lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if word := line.partition("#")[0].strip():
            yield number, word


class _Text(NamedTuple):
    """A scalar of YAML; ``plain`` tells that it has no quotes, so that it may be a number, or nothing."""

    value: str
    line: int
    plain: bool


class _Mapping(list[Any]):
    """A mapping of YAML: keys and values in turn. A list of YAML is a plain list of these, of texts and of lists."""

    @property
    def pairs(self) -> list[tuple[str, Any]]:
        """Each key with its value."""
        return [(key.value, value) for key, value in zip(self[::2], self[1::2], strict=True)]


def _of_yaml(text: str, file: str) -> Iterator[tuple[int, str]]:
    import yaml

    try:
        for document in _documents(text):
            yield from ((found.line, found.value) for found in _images(document, set()))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(
            f"the set {file} is not YAML",
            detail=f"{file}{line}: {getattr(error, 'problem', None) or error}",
            hint="render templates first (helm template), then run the command again",
        ) from error


def _documents(text: str) -> Iterator[Any]:
    """Yields each document: a `_Text`, a `_Mapping` or a list. PyYAML's own nodes take more than twice as long."""
    import yaml

    loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    inside: list[list[Any]] = []
    anchors: dict[str, Any] = {}
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.NodeEvent):
            parent, node = inside[-1], _node(event, anchors)
            if isinstance(parent, _Mapping) and len(parent) % 2 == 0 and not isinstance(node, _Text):
                raise _error("a key is a text, not a mapping or list", event)
            parent.append(node)
            if isinstance(event, yaml.CollectionStartEvent):
                inside.append(node)
            if len(inside) > _DEEPEST:
                raise _error("it is nested too deeply", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
        elif isinstance(event, yaml.DocumentStartEvent):
            inside, anchors = [[]], {}
        elif isinstance(event, yaml.DocumentEndEvent):
            yield inside[0][0]


def _error(problem: str, event: Any) -> yaml.YAMLError:
    import yaml

    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _node(event: Any, anchors: dict[str, Any]) -> Any:
    import yaml

    start: Any = event.start_mark
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise _error(f"there is no anchor {event.anchor}", event)
        return anchors[event.anchor]
    if isinstance(event, yaml.ScalarEvent):
        node: Any = _Text(event.value, start.line + 1, event.implicit[0])
    else:
        node = _Mapping() if isinstance(event, yaml.MappingStartEvent) else []
    if event.anchor:
        anchors[event.anchor] = node
    return node


def _images(node: Any, seen: set[int], kind: str = "") -> Iterator[_Text]:
    """Yields every ``image`` below a node in the order of the text; ``kind`` is that of the object around the node.

    Metadata and status are left out: an object's status has names that other tools gave to the same images.
    """
    if isinstance(node, _Text) or id(node) in seen:  # seen: an alias
        return
    seen.add(id(node))
    if not isinstance(node, _Mapping):
        for child in node:
            yield from _images(child, seen, kind)
        return
    own = next((value.value for key, value in node.pairs if key == "kind" and isinstance(value, _Text)), "")
    for key, value in node.pairs:
        if key == "metadata" or (key == "status" and own):
            continue
        if key == "image":
            yield from _texts(value, "reference")  # an image volume has `image: {reference: REF}`
        elif key == "images" and (own or kind) == _IMAGES and type(value) is list:
            for child in value:
                yield from _texts(child, "name")
        yield from _images(value, seen, own or kind)


def _texts(node: Any, key: str) -> Iterator[_Text]:
    """Yields a node that is a text, or the text that a mapping has under ``key``; an empty text names nothing."""
    if isinstance(node, _Mapping):
        yield from (text for name, value in node.pairs if name == key for text in _texts(value, ""))
    elif isinstance(node, _Text) and not (node.plain and node.value in _NOTHING) and node.value:
        yield node
