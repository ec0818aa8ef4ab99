"""Every hint ends with a command line that runs as printed, or names what to write into which file."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric.main import program
from invoke.collection import Collection
from invoke.parser import Parser, ParserContext

import fabfile
from ctr_ferry import errors
from ctr_ferry.errors import ImageNotFound, ReferenceExists
from ctr_ferry.images.item import ImageResult
from ctr_ferry.images.retag import RetagResult
from ctr_ferry.oci.registry import RegistryState
from ctr_ferry.report.hints import Asked, at_hosts, finish
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.run.executor import _is_line_wrong
from ctr_ferry.ssh.target import parse_address

ROOT = Path(__file__).parents[2]
APP = "r.example/app:1"
PULL = {"ref": [APP], "platform": "linux/arm64", "force": False, "namespace": None, "serial": None}
SHELL = re.compile(
    r"(?:^|: )(?:bzip2|chmod|docker login|echo|env|ls -l|lz4|mkdir -p|mv|read -rs|rm|ssh-add|ssh-keygen|unset"
    r"|unzip|xz)(?: .|$)"
)


CONFIGURATION = re.compile(r"\bwrite into [^ ,:]+(?:, [^:]+)?: .")


def parsed(line: str) -> list[tuple[str | None, dict[str, Any]]]:
    """What our own command line makes of a command line, as a shell splits it: each command with its options."""
    contexts = Collection.from_module(fabfile).to_contexts()
    initial = ParserContext(args=[*program.core_args(), *program.task_args()])
    words = shlex.split(line)
    assert words[0] == "fab"
    return [(each.name, each.as_kwargs) for each in Parser(contexts, initial).parse_argv(words[1:])]


@pytest.mark.parametrize(
    ("hint", "line"),
    [
        ("make room there", f"make room there; then: fab -H HOST pull --ref {APP} --platform linux/arm64"),
        ("run the command again", f"run the command again: fab -H HOST pull --ref {APP} --platform linux/arm64"),
        ("leave --platform out", f"leave --platform out: fab -H HOST pull --ref {APP}"),
        (
            "add --force to move it",
            f"add --force to move it: fab -H HOST pull --ref {APP} --platform linux/arm64 --force",
        ),
        (
            "choose one, such as with --platform linux/amd64",
            f"choose one, such as with --platform linux/amd64: fab -H HOST pull --ref {APP} --platform linux/amd64",
        ),
        ("raise it: -t 30", f"raise it: -t 30: fab -H HOST -t 30 pull --ref {APP} --platform linux/arm64"),
        (
            "give it with --prompt-for-passphrase",
            "give it with --prompt-for-passphrase: "
            f"fab -H HOST pull --ref {APP} --platform linux/arm64 --prompt-for-passphrase",
        ),
        ("see fab -H HOST doctor", "see fab -H HOST doctor"),
        ("", f"fab -H HOST pull --ref {APP} --platform linux/arm64"),
    ],
)
def test_a_hint_gets_the_command_line_that_follows_it(hint: str, line: str) -> None:
    outcome = Outcome("node1", Status.FAILED, 0, error=ReferenceExists("it exists", hint=hint))
    asked = Asked([("pull", PULL)], "all")
    for _ in range(2):  # it is finished once
        assert finish(outcome, asked).error.hint == line  # type: ignore[union-attr]


def test_the_command_line_has_the_hosts_that_share_the_error() -> None:
    text = "try: fab -H HOST doctor"
    assert at_hosts(text, ["node1", "node[2]"], "failed") == "try: fab -H 'node1,node[2]' doctor"
    assert at_hosts(text, [f"node{n}" for n in range(1, 10)], "failed") == "try: fab -H 'node[1-9]' doctor"
    assert at_hosts(text, "abcdefghi", "failed") == "try: fab -H @failed doctor"


def test_json_has_the_host_in_every_hint() -> None:
    image = ImageResult(APP, APP, error=ImageNotFound("none", hint="add --force").to_json())
    result = RetagResult("k8s.io", "k8s.io", "1.6", "1.6", (image,))
    outcome = Outcome("node1", Status.FAILED, 0, result=result, error=ImageNotFound("none", hint="fab -H HOST doctor"))
    document = finish(outcome, Asked([("pull", {**PULL, "ref": [APP, "b:1"]})], "all")).to_json()
    assert document["error"]["hint"] == "fab -H node1 doctor"
    command = f"fab -H node1 pull --ref {APP} --platform linux/arm64 --force"  # of this image alone
    assert document["result"]["images"][0]["error"]["hint"] == f"add --force: {command}"


def test_a_command_line_that_is_wrong_is_not_repeated() -> None:
    hint = Asked([("pull", PULL)], "all").finish("give a number", repeat=False)
    assert hint == "give a number; what is there: fab -H all images"


def test_a_misspelt_host_is_replaced_among_all() -> None:
    asked = Asked([("pull", {"ref": [APP]})], "nod12,nod1,!nod1,node2")
    hint = "did you mean node1? with node1 in place of nod1"
    assert asked.finish(hint, repeat=False) == f"{hint}: fab -H 'nod12,node1,!node1,node2' pull --ref {APP}"


@pytest.mark.parametrize(("hosts", "line"), [("a,b:x", "fab -H a,b:22 images"), ("n1", "fab -H n1 images")])
def test_a_wrong_port_is_replaced_where_it_was_typed(hosts: str, line: str) -> None:
    with pytest.raises(errors.UsageError) as wrong:
        parse_address("b:x")
    assert Asked([("images", {})], hosts).finish(wrong.value.hint, repeat=False).endswith(f"place of b:x: {line}")


@pytest.mark.parametrize(("hosts", "mended"), [("a, nod1", "'a, node1'"), ("ops@nod1,b", "ops@node1,b")])
def test_a_misspelt_host_is_replaced_behind_a_space_and_a_user(hosts: str, mended: str) -> None:
    hint = "did you mean node1? with node1 in place of nod1"
    assert Asked([("images", {})], hosts).finish(hint, repeat=False) == f"{hint}: fab -H {mended} images"


def test_an_image_that_is_named_instead_leaves_the_set_out() -> None:
    asked = Asked([("load", {"set_": ["site.images"], "archive": "a.tar", "ref": []})], "node2")
    hint = f"choose one, such as with --ref {APP}"
    assert asked.finish(hint, repeat=False) == f"{hint}: fab -H node2 load --archive a.tar --ref {APP}"


def test_a_misspelt_source_is_replaced_among_all() -> None:
    asked = Asked([("copy", {"from_": ["nod1", "node3"], "ref": [APP]})], "node2")
    hint = "did you mean node1? with node1 in place of nod1"
    assert asked.finish(hint, repeat=False) == f"{hint}: fab -H node2 copy --from node1 --from node3 --ref {APP}"


def test_a_wrong_limit_gives_way_to_the_right_one() -> None:
    asked = Asked([("pull", {"ref": [APP]})], "node2", ("--connect-timeout=-1", "-d"))
    assert asked.finish("give another one: -t 10").endswith(f"10: fab -H node2 -d -t 10 pull --ref {APP}")


def test_an_image_whose_registry_is_out_of_reach_can_come_over_ssh() -> None:
    outcome = Outcome("node1", Status.FAILED, 0, error=errors.RegistryTimeout("no answer", hint="check the routes"))
    hint = "check the routes; or bring it over SSH from a host that has it"
    line = f"fab -H HOST copy --from any --ref {APP}"
    assert finish(outcome, Asked([("pull", PULL)], "all")).error.hint == f"{hint}: {line}"  # type: ignore[union-attr]


def test_an_image_that_cannot_be_pushed_can_go_to_all_hosts_over_ssh() -> None:
    outcome = Outcome("n", Status.FAILED, 0, error=errors.RegistryUnreachable("no answer", hint="check the routes"))
    line = f"check the routes; or bring it to all hosts over SSH: fab -H all copy --from any --ref {APP}"
    assert finish(outcome, Asked([("push", {"ref": [APP]})], "n")).error.hint == line  # type: ignore[union-attr]


def test_options_of_fabric_stay_in_the_command_line() -> None:
    asked = Asked([("pull", PULL)], "node1", ("--prompt-for-sudo-password",))
    line = asked.finish("fab -H HOST doctor")
    assert line == "fab -H node1 --prompt-for-sudo-password doctor"
    assert asked.finish(line) == line


def test_a_command_on_images_gets_the_namespace_that_was_asked_for() -> None:
    asked = Asked([("pull", {**PULL, "namespace": "moby"})], "node1")
    line = f"bring it: fab -H node1 copy --from any --ref {APP} --namespace moby"
    assert asked.finish(f"bring it: fab -H HOST copy --from any --ref {APP}") == asked.finish(line) == line
    assert asked.finish("a glob fits whole names: fab -H HOST images").endswith(
        ": fab -H node1 images --namespace moby"
    )
    assert asked.finish("fab -H HOST images --all-namespaces") == "fab -H node1 images --all-namespaces"
    assert asked.finish("fab -H HOST doctor") == "fab -H node1 doctor"


class Hints(ast.NodeVisitor):
    """Collects every hint of a file, in all its variants: (the place, the class of the error, the hint)."""

    def __init__(self, file: Path) -> None:
        self.file, self.found = file, list[tuple[str, str, str]]()
        self._function: list[ast.AST] = []
        tree = ast.parse(file.read_text())
        self._module = tree
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function.append(node)
        self.generic_visit(node)
        self._function.pop()

    def visit_Call(self, node: ast.Call) -> None:
        kind = node.func.id if isinstance(node.func, ast.Name) else ""
        for keyword in node.keywords:
            if keyword.arg == "hint":
                self._add(kind, keyword.value)
        if kind == "Finding" and len(node.args) > 3:
            self._add(kind, node.args[3])
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.targets[0], ast.Attribute) and node.targets[0].attr == "hint":
            self._add("", node.value)
        self.generic_visit(node)

    def _add(self, kind: str, node: ast.expr) -> None:
        where = f"{self.file.relative_to(ROOT)}:{node.lineno}"
        self.found += [(where, kind, hint) for hint in self._texts(node) if hint]

    def _texts(  # noqa: PLR0912  (a case for each kind of expression)
        self, node: ast.expr, known: tuple[str, ...] = ()
    ) -> Iterator[str]:
        """The texts that an expression may give; a value that only a run knows is some image."""

        def each(nodes: Iterable[ast.expr]) -> Iterator[tuple[str, ...]]:
            return itertools.product(*(list(self._texts(node, known)) for node in nodes))

        match node:
            case ast.Constant():
                yield str(node.value)
            case ast.JoinedStr():
                yield from map("".join, each(node.values))
            case ast.FormattedValue():
                yield from self._texts(node.value, known)
            case ast.IfExp():
                yield from (*self._texts(node.body, known), *self._texts(node.orelse, known))
            case ast.BoolOp():
                yield from (text for value in node.values for text in self._texts(value, known))
            case ast.BinOp(op=ast.Add()):
                yield from map("".join, each([node.left, node.right]))
            case ast.Call(func=ast.Attribute(attr="join"), args=[ast.List(elts=words)]):
                yield from map(shlex.join, each(words))
            case ast.Subscript(value=ast.Name(id=name)) if tables := [
                value for value in self._values(name) if isinstance(value, ast.Dict)
            ]:
                yield from (text for table in tables for value in table.values for text in self._texts(value, known))
            case ast.Call(func=ast.Attribute(attr="join", value=ast.Name(id="shell")), args=[ast.Name(id=name)]) if (
                lists := [value for value in self._values(name) if isinstance(value, ast.List)]
            ):
                yield from (shlex.join(words) for value in lists for words in each(value.elts))
            case ast.Call(func=ast.Attribute(attr="join", value=ast.Name(id="shell"))):
                yield f"--ref {APP}"
            case ast.Call(func=ast.Name(id="ls_line")):
                yield f"ls -l {APP}"
            case ast.Call(func=ast.Name(id="_typed_with"), args=[_, right]):
                yield from (
                    f"fab {'-F' if text == 'flat' else '-t'} {text} hosts" for text in self._texts(right, known)
                )
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name not in known and (
                returned := list(self._returned(name))
            ):
                yield from (text for value in returned for text in self._texts(value, (*known, name)))
            case ast.Name(id=name) if name not in known and (values := list(self._values(name))):
                yield from (text for value in values for text in self._texts(value, (*known, name)))
            case ast.Starred():  # some options
                yield "--json"
            case ast.Attribute(attr="hint" | "remedy"):
                return  # of another error
            case _:
                yield APP

    def _returned(self, name: str) -> Iterator[ast.expr]:
        """What a function of the file returns."""
        for function in (f for f in ast.walk(self._module) if isinstance(f, ast.FunctionDef) and f.name == name):
            yield from (node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value)

    def _values(self, name: str) -> Iterator[ast.expr]:
        """What a name is set to, in the function or at the top of the file."""
        for scope in (*self._function[-1:], self._module):
            for node in ast.walk(scope) if scope is not self._module else self._module.body:
                if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                    yield node.value


def _command_of(where: str) -> tuple[str, dict[str, None]]:
    """The command that a file of `tasks` declares, else one with most options; none of its options is given."""
    name = Path(where.partition(":")[0]).stem if where.startswith("tasks/") else "deliver"
    context = next(each for each in Collection.from_module(fabfile).to_contexts() if each.name == name)
    return name, dict.fromkeys(context.as_kwargs)


FILES = sorted([*(ROOT / "ctr_ferry").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])
HINTS = [hint for file in FILES for hint in Hints(file).found]
HINTS += [(f"RegistryState.{state.name}", "RegistryError", state.remedy) for state in RegistryState if state.remedy]


@pytest.mark.parametrize(("where", "kind", "hint"), HINTS, ids=[f"{where} {hint[:60]}" for where, _, hint in HINTS])
def test_every_hint_of_the_code_ends_with_a_command_that_can_be_pasted(where: str, kind: str, hint: str) -> None:
    kinds = getattr(errors, kind, errors.FerryError)
    hint = hint.replace(f"--{APP}", "--ref")  # the name of an option, which only a run knows
    early = where.startswith("ctr_ferry/run/program.py")  # before the command line is read, a hint stays as it is
    finished = (
        hint if early else Asked([_command_of(where)], "node1").finish(hint, repeat=not _is_line_wrong(kinds("")))
    )
    finished = hint.replace("-H HOST ", "-H node1 ") if kind == "Finding" else finished  # doctor shows it as it is
    _, fab, line = finished.rpartition("fab ")
    if not fab or CONFIGURATION.search(finished):
        assert kind == "Finding" or SHELL.search(finished) or CONFIGURATION.search(finished), finished
        return
    assert not re.search(r"…|\b(?:REF|FILE|NAME|GLOB|RUN|HOST)\b", line), line
    assert "--help" not in line, finished
    commands = parsed(f"fab {line}")
    assert line == "--list" or [name for name, _ in commands[1:]], line
