"""docs/troubleshooting.md has an entry with a command for every error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ctr_ferry import errors

PAGE = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
WORDS = (
    "content digest sha256:… not found",
    '"not found" in crictl though ctr lists it',
    "pull policy of Never",
    "server gave HTTP response to HTTPS client",
    "x509: certificate signed by unknown authority",
    "ImagePullBackOff",
    "failed to resolve reference",
    "no such host",
    "unexpected status: 401",
    "no match for platform",
    "No help topic for 'tag'",
    "Too many authentication failures",
    "Host key verification failed",
)


def subclasses(cls: type[errors.FerryError]) -> list[type[errors.FerryError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in subclasses(child))]


KINDS = {cls.kind: cls for cls in subclasses(errors.FerryError) if cls.__module__ == errors.__name__}


def entries() -> dict[str, tuple[str, str]]:
    """By kind, the heading of its section and the text of its entry."""
    found: dict[str, tuple[str, str]] = {}
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        for entry in section.split("\n### ")[1:]:
            heading, _, text = entry.partition("\n")
            if kind := re.fullmatch("`(.+)`", heading):
                assert kind[1] not in found, f"{kind[1]} has two entries"
                found[kind[1]] = title, text
    return found


def test_every_kind_has_an_entry_and_no_entry_is_of_another_kind() -> None:
    assert sorted(entries()) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_stands_under_the_exit_status_of_its_error(kind: str) -> None:
    title, _ = entries()[kind]
    assert title.endswith(f"(exit status {KINDS[kind].exit_code})")


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_says_what_it_means_and_then_has_a_command(kind: str) -> None:
    meaning, *commands = re.split(r"\n+ *```\w+\n", entries()[kind][1].strip())
    assert len(meaning) > 60 and commands


@pytest.mark.parametrize("words", WORDS)
def test_the_words_that_people_search_for_are_headings(words: str) -> None:
    assert re.search(rf"^### .*{re.escape(words)}", PAGE, re.MULTILINE)


def test_a_link_within_the_page_leads_to_a_heading() -> None:
    headings = re.findall("^##+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
