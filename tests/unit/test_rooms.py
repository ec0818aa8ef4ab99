"""The rooms are as ARCHITECTURE.md has them: imports point downwards, and what pages name exists."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_ferry import errors

ROOT = Path(__file__).parents[2]
FLOORS = [  # a room may import itself and the floors below; rooms on one floor do not import each other
    {"tasks"},
    {"delivery"},
    {"transfer"},
    {"run", "registry"},
    {"images"},
    {"inventory", "report"},
    {"ssh", "ctr"},
    {"oci"},
    {"ground"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
GROUND = {"errors", "ranges", "secrets", "shell", "text", "__init__"}
LIBRARIES = {"fabric", "paramiko"}
FABRICS_OWN_CLASSES = {f"ctr_ferry/run/{name}.py" for name in ("command", "executor", "own_tasks", "program")}
FILES = sorted([*(ROOT / "tasks").rglob("*.py"), *(ROOT / "ctr_ferry").rglob("*.py")])


def imported(file: Path) -> set[str]:
    """Every module that a file imports, also inside functions; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    """The room of ``tasks.<…>`` or ``ctr_ferry.<…>``."""
    package, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    if package == "tasks":
        return "tasks"
    return first if first in FLOOR else "ground"


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def room_of(file: Path) -> str:
    return room(name(file).removesuffix(".py").replace("/", "."))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_imports_only_from_its_own_room_and_from_floors_below(file: Path) -> None:
    here = room_of(file)
    for module in imported(file):
        if module.startswith(("tasks.", "ctr_ferry.")):
            there = room(module)
            assert there == here or FLOOR[there] > FLOOR[here], f"{name(file)} imports {module}: {here} -> {there}"


def test_every_file_is_in_a_room_or_on_the_ground() -> None:
    for file in FILES:
        parts = file.relative_to(ROOT).parts
        if parts[0] == "ctr_ferry":
            assert (len(parts) == 3 and parts[1] in FLOOR) or (len(parts) == 2 and file.stem in GROUND), name(file)
        else:
            assert len(parts) == 2, name(file)


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f) == "tasks"], ids=name)
def test_a_command_never_imports_another(file: Path) -> None:
    assert not {module for module in imported(file) if module.startswith("tasks.")}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_only_ssh_imports_fabric_and_paramiko(file: Path) -> None:
    if room_of(file) == "ssh":
        return
    found = {m for m in imported(file) if m.split(".")[0] in LIBRARIES}
    assert found == {m for m in found if name(file) in FABRICS_OWN_CLASSES and m.startswith("fabric")}


def test_the_pure_rooms_import_nothing_that_reads_or_waits() -> None:
    io = {"subprocess", "socket", "os", "pathlib", "time", "select", "threading"}
    for file in [f for f in FILES if room_of(f) in ("ctr", "oci", "ground")]:
        assert not {m.split(".")[0] for m in imported(file)} & io, file


def test_the_fabfile_only_imports() -> None:
    docstring, *rest = ast.parse((ROOT / "fabfile.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    for node in rest:
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert is_all or isinstance(node, ast.ImportFrom), ast.unparse(node)


def test_fab_l_loads_nothing_that_only_a_run_needs() -> None:
    heavy = {"rich", "yaml", "msgspec", "tarfile", "http.client", "ctr_ferry.ssh.host", "ctr_ferry.transfer.host_copy"}
    code = (
        "import fabric, sys; before = set(sys.modules); import fabfile; "  # Invoke loads yaml where it is installed
        f"print(sorted((set(sys.modules) - before) & {heavy}), 'tasks.retag' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_a_run_writes_bytecode_although_invoke_switches_that_off() -> None:
    code = "import sys; sys.dont_write_bytecode = True; import tasks; print(sys.dont_write_bytecode)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for flags, expected in (([], "False"), (["-B"], "True")):
        command = [sys.executable, *flags, "-c", code]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


PAGES = [ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = r"`((?:\w+/)*\w+\.py)`"


def names_in(file: Path) -> set[str]:
    """Every function, class, method and constant of a file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def pointed_at(page: Path) -> Iterator[tuple[str, str]]:
    """Each file that a page names, with each name that the page says is in it; paths may leave ctr_ferry/ out."""
    text = " ".join(page.read_text().split())
    yield from ((path, "") for path in re.findall(CODE, text) if "NAME" not in path)
    yield from ((path, name) for name, path in re.findall(rf"`([\w.]+)`(?: in | \(){CODE}", text))
    yield from ((path, name) for name, path in re.findall(rf"`([\w.]+)` and `[\w.]+` in {CODE}", text))
    yield from re.findall(rf"{CODE}(?:: |, class )`([\w.]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_points_at_files_and_names_that_exist(page: Path) -> None:
    for path, named in pointed_at(page):
        files = [folder / path for folder in (ROOT, ROOT / "ctr_ferry") if (folder / path).exists()]
        assert files, f"there is no {path}"
        assert set(filter(None, named.split("."))) <= names_in(files[0]), f"{path} has no {named}"


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=name)
def test_a_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def subclasses(cls: type[errors.FerryError]) -> list[type[errors.FerryError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in subclasses(child))]


TREE = [cls for cls in subclasses(errors.FerryError) if cls.__module__ == errors.__name__]


def drawn() -> dict[str, tuple[str | None, str]]:
    """Class to parent and the words beside it, out of the docstring's drawing."""
    found: dict[str, tuple[str | None, str]] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ((?:[│ ]   )*(?:[├└]── )?)(\w+) {2,}(.*)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            found[match[2]] = (path[depth - 1] if depth else None, match[3])
    return found


def test_the_drawn_error_tree_is_the_real_one() -> None:
    real = {cls.__name__: cls.__bases__[0].__name__ if cls is not errors.FerryError else None for cls in TREE}
    assert {cls: parent for cls, (parent, _) in drawn().items()} == real


def test_the_drawing_names_every_kind() -> None:
    for cls in TREE:
        if cls not in (errors.FerryError, errors.HostError):
            words = drawn()[cls.__name__][1].removeprefix(f"exit {cls.exit_code}").strip()
            assert re.match(rf"{cls.kind}(:|$)", words), f"{cls.__name__} is {cls.kind}, drawn as {words!r}"


def test_every_kind_is_unique_and_a_stable_word() -> None:
    kinds = [cls.kind for cls in TREE]
    assert sorted(set(kinds)) == sorted(kinds)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", kind) for kind in kinds)


def test_every_error_has_a_kind_a_docstring_and_an_exit_status() -> None:
    for cls in TREE:
        assert "kind" in vars(cls), cls
        assert cls.__doc__, cls
        assert cls.exit_code in (1, 2, 4)
