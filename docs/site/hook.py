"""Hooks of mkdocs: the site has the folders of the repository, so that the links of a page work here and there.

README.md is the front page. The pages beside it and those of docs/ keep their places, and so do files that pages link
to. The navigation is the tables of docs/README.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "README.zh-CN.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
_LINK = re.compile(r"\]\(\s*([^)\s#]+)")
_ITEM = re.compile(r"^( *)([-*+]|\d+[.)])( +)")


def on_config(config: Any) -> Any:
    """Give the site its navigation."""
    config["nav"] = navigation()
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Return the pages and what they link to, each at its place in the repository."""
    from mkdocs.structure.files import File, Files

    theme = [file for file in files if file.src_uri.startswith("assets/")]
    found = [File.generated(config, uri, abs_src_path=str(ROOT / uri)) for uri in sorted({*pages(), *linked()})]
    found.append(File.generated(config, "docs/site/extra.css", abs_src_path=str(ROOT / "docs/site/extra.css")))
    return Files([*theme, *found])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page with lists as Python-Markdown wants them."""
    return indented(markdown)


def pages() -> list[str]:
    """Return the paths of all pages."""
    return [*(name for name in TOP if (ROOT / name).exists()), *_below(ROOT / "docs", "**/*.md")]


def linked() -> set[str]:
    """Return the paths of the files of the repository that pages link to and that are no pages."""
    found = set()
    for page in pages():
        for link in _LINK.findall((ROOT / page).read_text()):
            target = (ROOT / page).parent / link
            if "://" not in link and target.is_file() and target.suffix != ".md":
                found.add(str(target.resolve().relative_to(ROOT)))
    return found


def navigation() -> list[dict[str, Any]]:
    """Return the navigation: the front page, a part for each table of docs/README.md, and the Chinese pages."""
    parts: list[dict[str, Any]] = [{"ctr-ferry": "README.md"}]
    chinese = [*_below(ROOT, "README.zh-CN.md"), *_below(ROOT / "docs/zh-CN", "*.md")]
    listed, rest = {"README.md", *chinese}, [{"All pages": "docs/README.md"}]
    for part in (ROOT / "docs/README.md").read_text().split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        found = []
        for name, link in re.findall(r"\[([^]]+)\]\(([^)#]+\.md)\)", text):
            path = str((ROOT / "docs" / link).resolve().relative_to(ROOT))
            if path not in listed and (ROOT / path).exists() and "decisions" not in path:
                found.append({name: path})
                listed.add(path)
        parts.append({title: found})
    if chinese:
        parts.insert(1, {"中文": [{_title(path): path} for path in chinese]})
    others = [page for page in pages() if page not in listed and page != "docs/README.md"]
    decisions = [page for page in others if page.startswith("docs/decisions/")]
    rest += [{_title(path): path} for path in others if path not in decisions]
    rest.append({"Decisions": sorted(decisions, key=lambda path: not path.endswith("README.md"))})
    return [*parts, {"The project": rest}]


def indented(markdown: str) -> str:
    """Return Markdown in which the content of list items is indented by 4 columns, as Python-Markdown demands.

    GitHub takes the width of the item's marker. A blank line is put before a list that follows a paragraph.
    """
    lines, columns, before, fenced = [], [], "", False
    for line in markdown.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        if line.strip() and not fenced:
            while columns and indent < columns[-1]:
                columns.pop()
        item = None if fenced else _ITEM.match(line)
        kept = line[columns[-1] :] if columns else line
        if item and not columns and before.strip() and not _ITEM.match(before) and not before.startswith(" "):
            lines.append("")
        lines.append(" " * (4 * len(columns)) + kept if line.strip() else line)
        if item:
            columns.append(len(item[0]))
        fenced = fenced != line.lstrip(" ").startswith("```")
        before = line
    return "\n".join(lines)


def _below(folder: Path, pattern: str) -> list[str]:
    """Return the paths of the files below a folder that fit a pattern."""
    return sorted(str(path.relative_to(ROOT)) for path in folder.glob(pattern))


def _title(path: str) -> str:
    """Return the first heading of a page."""
    return (ROOT / path).read_text().partition("\n")[0].lstrip("# ")
