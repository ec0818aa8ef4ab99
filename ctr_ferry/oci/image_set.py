"""Sets of images: the references that a list, or YAML of Hauler, kubeadm and Kubernetes, names. Pure.

A list has one reference on a line, as ``kubeadm config images list``, k3s, RKE2 and ``talosctl image default`` print.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from ctr_ferry.errors import BadReference, UsageError
from ctr_ferry.oci.reference import Reference, is_digest

if TYPE_CHECKING:
    import yaml

_YAML = re.compile(r"---|%YAML|[\[{]|[\"']?[A-Za-z]\w*[\"']?:(?:\s|$)")  # how the first line that counts begins
_MOST_SHOWN = 10  # wrong lines that a message has
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
            f"the set {file} names no image", hint="write one reference on each line, or give YAML with image: REF"
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


def _of_yaml(text: str, file: str) -> Iterator[tuple[int, str]]:
    import yaml

    try:
        for document in _documents(text):
            for node in _images(document, set()):
                yield node.start_mark.line + 1, node.value
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(
            f"the set {file} is not YAML",
            detail=f"{file}{line}: {getattr(error, 'problem', None) or error}",
            hint="render templates first (helm template), or write one reference on each line",
        ) from error
    except RecursionError as error:
        raise UsageError(f"the set {file} is nested too deeply", hint="give the images as a list") from error


@cache
def _loader() -> Any:
    """The loader. libyaml reads fast, but its own composer crashes on what is nested too deeply."""
    import yaml
    from yaml.composer import Composer

    scanner: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

    class Loader(Composer, scanner):  # type: ignore[misc]
        def __init__(self, text: str) -> None:
            scanner.__init__(self, text)
            Composer.__init__(self)

    return Loader


def _documents(text: str) -> Iterable[yaml.Node]:
    import yaml

    documents: Iterable[yaml.Node] = yaml.compose_all(text, Loader=_loader())
    return documents


def _images(node: yaml.Node, seen: set[int], kind: str = "") -> Iterator[yaml.ScalarNode]:
    """Yields every ``image`` below a node in the order of the text; ``kind`` is that of the object around the node.

    Metadata and status are left out: an object's status has names that other tools gave to the same images.
    """
    import yaml

    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _images(child, seen, kind)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(None, None, "a key is a text, not a mapping or list", key.start_mark)
    pairs = [(str(key.value), value) for key, value in node.value]
    own = next((str(value.value) for key, value in pairs if key == "kind"), "")
    for key, value in pairs:
        if key == "metadata" or (key == "status" and own):
            continue
        if key == "image":
            yield from _strings(value, "reference")  # an image volume has `image: {reference: REF}`
        elif key == "images" and (own or kind) == _IMAGES and isinstance(value, yaml.SequenceNode):
            for child in value.value:
                yield from _strings(child, "name")
        yield from _images(value, seen, own or kind)


def _strings(node: yaml.Node, key: str) -> Iterator[yaml.ScalarNode]:
    """Yields a node that is a text, or the text that a mapping has under ``key``; an empty text names nothing."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                yield from _strings(value, "")
    elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str" and node.value:
        yield node
