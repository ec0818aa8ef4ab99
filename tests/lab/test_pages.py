"""Every command that a page shows does on the rehearsal fleet what the page says, from `make lab-up` on.

`make pages` writes into the pages what the commands print now; PAGES names some of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import Fab
from forkserver import CLONE
from free_network import beside
from pages import SHOWN_NATIVE, Reader, every_page, shown_on
from transcripts import commands, rewritten

from lab import rehearsal
from lab.fleet import Fleet
from lab.images import NATIVE

WRITE = "CTR_FERRY_WRITE_PAGES"  # set by `make pages`
CHOSEN = os.environ.get("PAGES", "").split()
WITH_COMMANDS = [page for page in every_page() if commands((CLONE / page).read_text())]


@pytest.fixture
def people(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet beside that of the tests, as `make lab-up` brings it up."""
    made = Fleet(tmp_path / "state", cache=fleet.cache, network=beside(fleet.network))
    try:
        rehearsal.up(made)
        yield made
    finally:
        made.down()


@pytest.fixture
def reader(fab: Fab, people: Fleet, tmp_path: Path) -> Reader:
    """Someone at a terminal, in a clone."""
    return Reader(people, tmp_path, fab.environment())


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page in CHOSEN or not CHOSEN])
def test_each_command_of_the_page_prints_what_the_page_shows(page: str, reader: Reader) -> None:
    text = (CLONE / page).read_text()
    shown = shown_on(text)
    printed = [reader.type(each) for each in shown]
    if os.environ.get(WRITE):
        told = [each.out.replace(NATIVE, SHOWN_NATIVE) for each in printed]
        (CLONE / page).write_text(rewritten(text, told))
        shown = shown_on((CLONE / page).read_text())
    wrong = [f"{page}:{fault}" for each, done in zip(shown, printed, strict=True) if (fault := done.wrong(each))]
    assert not wrong, "\n".join(wrong)
