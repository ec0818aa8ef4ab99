"""Pages show commands in blocks that are run, or, where that is impossible, commands that we would understand."""

from __future__ import annotations

import re

import pytest
from command_lines import fault, simple_commands
from pages import CLONE, every_page
from transcripts import Block, blocks, prose, stray

PAGES = [*every_page(), "CONTRIBUTING.md", "SECURITY.md"]
INFO = {"console", "sh", "text", "yaml", "ini", "toml", "json", "mermaid", "python"}
# Programs in `sh` blocks that are neither run nor parsed, each with the reason.
ELSEWHERE = {
    "ln": "links our program into .venv, as make does",
    "eval": "the shell; tests/unit/test_completion_shells.py reads with real shells what it reads",
    "ssh": "another machine",
    "df": "the reader's machine",
    "getent": "the reader's machine",
    "docker": "a program that the fleet lacks",
    "ssh-keygen": "changes the reader's files",
    "ansible-inventory": "a program that the fleet lacks",
    "ssh-keyscan": "the reader's hosts",
    "sha256sum": "an archive of the reader's",
    "kubeadm": "a program that the fleet lacks",
    "python3": "fetches packages; the tests of the installation run it",
    "pip": "fetches packages; the tests of the installation run it",
    "pipx": "fetches packages",
    "pre-commit": "fetched by pipx",
    "export": "a word of the shell",
    "0": "a line of a crontab",
    "jq": "what it prints needs hosts of the reader's",
    "cat": "a file of the reader's",
    "cd": "a word of the shell",
    "git": "fetches a clone",
    "tar": "an archive of the reader's",
    "read": "a word of the shell",
    "install.sh": "installs a bundle; the tests of the bundle run it",
}
# Within the text, an option may stand without its value, and a command without its argument.
INCOMPLETE = (
    "needed value and was not given one",
    "did not receive required positional arguments",
)

TEXT = {page: (CLONE / page).read_text() for page in PAGES}


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/troubleshooting.md", "docs/runbooks/new-node.md"} <= set(PAGES)
    assert not any("decisions" in page for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_says_what_it_is(page: str) -> None:
    found = blocks(TEXT[page])
    assert [f"{page}:{each.line}: {each.info}" for each in found if each.info not in INFO] == []
    assert [f"{page}:{each.line}: output without a command" for each in found if stray(each)] == []
    prompts = [each.line for each in found if each.info == "sh" and any(line.startswith("$ ") for line in each.lines)]
    assert prompts == [], "a command with a prompt belongs into a console block, which is run"


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_made_by_indentation_alone(page: str) -> None:
    lines, base, found = prose(TEXT[page]), 0, []
    for number, (before, line) in enumerate(zip(["", *lines], lines, strict=False), 1):
        if item := re.match(r"^(?:[-*]|\d+\.) +", line):
            base = len(item[0])
        elif line and not line.startswith(" "):
            base = 0
        if not before.strip() and line.startswith(" " * (base + 4)):
            found.append(f"{page}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize("page", PAGES)
def test_our_programs_understand_the_commands_that_are_not_run(page: str) -> None:
    wrong = []
    for block in blocks(TEXT[page]):
        for number, words in simple_commands(block) if block.info == "sh" else ():
            try:
                said = fault(words)
            except LookupError as other:
                said = "" if other.args[0] in ELSEWHERE else "this program is neither run nor parsed"
            if said:
                wrong.append(f"{page}:{number}: {' '.join(words)}: {said}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_our_programs_understand_the_commands_within_the_text(page: str) -> None:
    wrong = []
    for span in re.findall(r"`((?:fab|make|ctr-ferry|runbooks/[\w-]+\.sh) [^`]+)`", " ".join(prose(TEXT[page]))):
        for _, words in simple_commands(Block("sh", 0, [" ".join(span.split())])):
            try:
                said = fault(words)
            except LookupError:
                continue
            if said and not any(each in said for each in INCOMPLETE):
                wrong.append(f"{page}: {span}: {said}")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fab -H all,!node2 doctor --all", ""),
        (".venv/bin/fab -H node1 images --match 'a*' | head >f 2>&1", ""),
        ("FABRIC_TIMEOUTS_COMMAND=7200 fab -H node7 pull --ref a:1", ""),
        ("for i in 1 2; do fab -H node1 retag --src a:$i --dst b:$i; done", ""),
        ("fab -H node1 doctor --never", "--never"),
        ("fab -H node1 nonsense", "nonsense"),
        ("ctr-ferry hosts --nonsense", "--nonsense"),
        ("fab -H node1 -- uname -r", ""),
        ("fab -H node1 retag --src … --dst … …", ""),
        ("fab --help retag", ""),
        ("fab --help nonsense", "there is no nonsense"),
        ("make lab-down lab-up && fab hosts", ""),
        ("make bench-retag", ""),
        ("make nonsense", "there is no make nonsense"),
        ("runbooks/new-node.sh -H node5 --dry-run", ""),
        ("runbooks/new-node.sh -H node5 --nonsense", "--nonsense"),
    ],
)
def test_a_command_that_is_not_ours_is_told(line: str, expected: str) -> None:
    found = [words for _, words in simple_commands(Block("sh", 1, [line]))]
    said = []
    for words in found:
        try:
            said.append(fault(words))
        except LookupError as other:
            assert other.args[0] == "head"
    assert any(said) == bool(expected)
    assert expected in "".join(said)
