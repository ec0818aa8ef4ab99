"""The answers of many hosts, put together for one table. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from ctr_ferry import shell
from ctr_ferry.errors import FerryError, NothingFound
from ctr_ferry.report.outcome import Answer

K = TypeVar("K")
V = TypeVar("V")

_WAYS = {  # by the method that JSON has
    "tag": "by ctr images tag",
    "index": "by importing an index of a few KiB",
    "archive": "by exporting and importing the image",
    "link": "by linking content that the host has",
    "stream": "by copying content within the host",
    "blobs": "by sending what was missing",
    "pull": "by ctr images pull",
    "push": "by ctr images push",
    "platform": "by ctr images push --platform",
    "stage": "through a temporary name",
}


def results(answers: Mapping[str, Answer], kind: type[V]) -> Iterator[tuple[str, V]]:
    """Each host with its result, where it has one of this kind; an error counts with the result that it carries."""
    for host, answer in answers.items():
        found = answer.result if isinstance(answer, FerryError) else answer
        if isinstance(found, kind):
            yield host, found


def way(method: str, ctr: str) -> str:
    """How a name was, or would be, given on a host, in words, with the version of its ctr."""
    return f"{_WAYS.get(method, method)}, ctr {ctr}"


def nothing_fits(glob: str, answers: Mapping[str, Answer]) -> NothingFound:
    """The error of a command that changes what ``--match`` fits, where that is no image of any host that answered."""
    return NothingFound(
        f"no image fits {glob!r} on any host that answered",
        hint=f"a glob fits whole names; {look_wider(glob)}",
        result=dict(answers),
    )


def look_wider(text: str) -> str:
    """A hint that looks for what is like a name or glob: on all hosts, by the last part of the name alone."""
    last = re.split("[:@*?[]", text.strip("*?").rpartition("/")[2])[0]
    if last in ("", text):
        return "see all names: fab -H all images --all-namespaces"
    return f"see what is like it: fab -H all find --match {shell.join([last])}"


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """The values of each key; keys and values keep their order."""
    found: dict[K, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
