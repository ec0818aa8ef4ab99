"""The worst text from outside is parsed by every parser in little time, or is an error of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import CPU, PARSERS, WORST

ROOT = Path(__file__).parents[2]
ENDS = {"understood", "no manifest", "bad-reference", "bad-archive", "bad-arguments", "bad-inventory"}
pytestmark = pytest.mark.timeout(3600)  # the processor's seconds are what counts, however busy the machine is
ENDS |= {"garbled-answer", "answer-too-large", "command-failed"}


@pytest.fixture(scope="module")
def ends() -> dict[str, dict[str, str]]:
    """By parser and text how it ended.

    Each parser is a process of its own with a limit of its processor's seconds, not of the clock's: an expression
    whose work grows with the square of a text holds the interpreter for hours, and hears no signal but the last.
    """
    path = f"{ROOT}:{ROOT / 'tests' / 'support'}"
    command = [sys.executable, "-m", "hostile"]
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {name: {} for name in PARSERS}
    for line in done.stdout.splitlines():
        parser, words, end = json.loads(line)
        found[parser][words] = end
    return found


@pytest.mark.parametrize("parser", PARSERS)
def test_the_worst_of_all_texts_end_in_an_answer_or_in_an_error_of_ours(
    parser: str, ends: dict[str, dict[str, str]]
) -> None:
    unended = [words for words in WORST if words not in ends[parser]]
    assert not unended, f"{CPU} s of CPU were not enough for the first of these"
    assert {words: end for words, end in ends[parser].items() if end not in ENDS} == {}
