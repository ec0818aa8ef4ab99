"""The site's pages stand where the repository has them, and its lists are such as Python-Markdown understands."""

from __future__ import annotations

import runpy
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
HOOK = runpy.run_path(str(CLONE / "docs/site/hook.py"))


def test_the_navigation_has_every_page_once() -> None:
    found: list[str] = []
    waiting = list(HOOK["navigation"]())
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            (part,) = part.values()
        if isinstance(part, list):
            waiting += part
        else:
            found.append(part)
    assert sorted(found) == sorted(HOOK["pages"]())
    assert {"README.md", "docs/README.md", "docs/runbooks/new-node.md", "SECURITY.md"} <= set(found)


def test_files_that_pages_link_to_come_along() -> None:
    assert {"LICENSE", "runbooks/new-node.sh"} <= HOOK["linked"]()


def test_the_content_of_a_list_is_indented_by_four_columns() -> None:
    page = "Text:\n- a\n  b\n\n  ```sh\n  $ c\n    d\n  ```\n\n  - e\n    f\n10. g\n\n    h\n\nText\n"
    expected = (
        "Text:\n\n- a\n    b\n\n    ```sh\n    $ c\n      d\n    ```\n\n    - e\n        f\n10. g\n\n    h\n\nText\n"
    )
    assert HOOK["indented"](page) == expected


def test_what_is_in_no_list_is_left_alone() -> None:
    page = "# A\n\n```sh\n- no item\n  b\n```\n\n| a | b |\n"
    assert HOOK["indented"](page) == page
