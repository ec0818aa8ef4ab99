"""The options of every command: their names, help texts and values."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from invoke.parser import Parser, ParserContext

import fabfile
from ctr_ferry import errors
from ctr_ferry.errors import BadReference
from ctr_ferry.run import options
from ctr_ferry.run.command import CommonOptions, Kind, on_control_machine, per_host
from ctr_ferry.ssh.local_path import ls_line
from ctr_ferry.transfer.new_file import replacing

ARGUMENTS = {
    name: getattr(fabfile, name).get_arguments() for name in fabfile.__all__
}  # once: get_arguments removes help texts


def arguments(argv: list[str]) -> dict[str, object]:
    """The options of a command line, parsed by Invoke."""
    context = ParserContext("retag", args=ARGUMENTS["retag"])
    (parsed,) = Parser(contexts=[context]).parse_argv(["retag", *argv])
    return parsed.as_kwargs


def test_only_the_namespace_has_a_short_flag() -> None:
    short = {name for args in ARGUMENTS.values() for a in args for name in a.names if len(name) == 1}
    assert short == {"n"}


def test_options_are_given_by_their_names() -> None:
    taken = arguments(["--src", "a", "--dst=b", "-n", "default", "--to-namespace", "k8s.io", "--force", "--json"])
    assert taken["src"] == "a" and taken["dst"] == "b"
    assert taken["namespace"] == "default" and taken["to_namespace"] == "k8s.io"
    assert taken["force"] is True and taken["json"] is True and taken["dry_run"] is False
    assert taken["map"] is None


def test_every_option_has_a_help_text_and_the_common_ones_are_on_every_command() -> None:
    for name, args in ARGUMENTS.items():
        hosts = (
            set() if getattr(fabfile, name).kind is Kind.CONTROL_MACHINE else {"dry_run", "serial", "limit_failures"}
        )
        assert {"json"} | hosts <= {a.attr_name or a.name for a in args}
        assert all(a.help for a in args)
        assert getattr(fabfile, name).__doc__


def test_the_common_options_are_separated_from_a_commands_own() -> None:
    @per_host(lambda **own: own, help={})
    def nothing(host: object, request: object) -> None:
        """Does nothing."""

    options = {"json": True, "dry_run": False, "serial": "5", "limit_failures": "10%", "src": "a"}
    common, own = nothing.read(options)
    assert common == CommonOptions(json=True, dry_run=False, serial=5, limit_failures=0.1)
    assert own == {"src": "a"}


NEEDED = {"check": {"ref": ["a"]}, "push": {"ref": "a/b:1"}, "copy": {"from_": ["a"], "ref": ["b"]}, "show": {}}


@pytest.mark.parametrize(
    ("command", "name", "option"),
    [("check", "digest", "--digest"), ("push", "as_", "--as"), ("copy", "to_namespace", "--to-namespace"),
     ("copy", "ref", "--ref"), ("show", "run", "--run"), ("show", "host", "--host")],
)  # fmt: skip
def test_an_option_with_an_empty_value_is_refused(command: str, name: str, option: str) -> None:
    empty = ["b", ""] if name == "ref" else ""
    with pytest.raises(errors.UsageError, match=f"{option} is empty"):
        getattr(fabfile, command).read({**NEEDED[command], name: empty})


def test_each_command_declares_whether_it_is_read_only() -> None:
    commands = {name: getattr(fabfile, name) for name in fabfile.__all__ if name not in ("doctor", "deliver")}
    on_hosts = {name: command for name, command in commands.items() if command.kind is not Kind.CONTROL_MACHINE}
    assert {name for name, command in on_hosts.items() if command.read_only(None)} == {
        "check",
        "find",
        "images",
        "needs",
        "registry",
        "save",
    }
    doctor = fabfile.doctor
    assert [doctor.read_only(doctor.parse(clean=clean)) for clean in (False, True)] == [True, False]
    deliver = fabfile.deliver
    assert [deliver.read_only(deliver.parse(ref=["a"], plan=plan)) for plan in ("file", None)] == [True, False]


def common(serial: str | None = None, limit_failures: str | None = None) -> CommonOptions:
    return CommonOptions.parse(json=False, dry_run=False, serial=serial, limit_failures=limit_failures)


def test_a_limit_of_failures_is_a_number_or_a_share() -> None:
    assert (common().serial, common().limit_failures) == (None, None)
    assert [common(limit_failures=text).limit_failures for text in ("3", "100%", "5%")] == [3, 1.0, 0.05]
    assert type(common(limit_failures="1").limit_failures) is int  # one host; 100% is a share


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1.5", "10%"])
def test_a_serial_that_is_no_number_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError, match="--serial"):
        common(serial=text)


@pytest.mark.parametrize("text", ["", "0", "0%", "-1", "x", "1.5", "101%", "%", "5%%"])
def test_a_limit_of_failures_that_is_neither_number_nor_share_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError, match="--limit-failures"):
        common(limit_failures=text)


def test_a_command_on_the_control_machine_has_no_options_about_hosts() -> None:
    @on_control_machine(lambda: None, help={})
    def nothing(control_machine: object, request: object) -> None:
        """Does nothing."""

    names = {argument.attr_name or argument.name for argument in nothing.get_arguments()}
    assert names == {"json", "wide"}
    assert nothing.read({"json": True, "wide": False})[0] == CommonOptions(json=True)


NOWHERE = "~nobody-has-this-name/file"


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("deliver", {"set_": [NOWHERE]}),
        ("deliver", {"map": NOWHERE}),
        ("deliver", {"archive": NOWHERE}),
        ("apply", {"plan": NOWHERE}),
        ("load", {"archive": NOWHERE}),
        ("save", {"ref": ["a/b:1"], "out": NOWHERE}),
        ("needs", {"out": NOWHERE}),
    ],
)
def test_a_file_in_the_home_of_a_user_who_is_not_there_is_refused(command: str, given: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError, match="nobody-has-this-name"):
        getattr(fabfile, command).parse(**given)


@pytest.mark.parametrize(("command", "option"), [("deliver", "plan"), ("needs", "out")])
def test_a_file_that_has_something_else_is_not_replaced(command: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("all: {}\n")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    images = {"ref": ["a/b:1"]} if command == "deliver" else {}
    for wrong in ("hosts.yaml", "", "pipe", "nosuch/file"):
        with pytest.raises(errors.UsageError, match=f"--{option}"):
            getattr(fabfile, command).parse(**images, **{option: str(tmp_path / wrong)})
    for right in ("empty", "new"):
        getattr(fabfile, command).parse(**images, **{option: str(tmp_path / right)})


def test_only_a_file_is_replaced_by_a_new_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.CannotWrite), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("there", ["a b", ""])
def test_a_file_that_cannot_be_read_is_listed_or_else_the_folder_that_is_there(tmp_path: Path, there: str) -> None:
    (tmp_path / "a b").touch()
    file = tmp_path / (there or "none/of/these")
    assert ls_line(file) == f"ls -l {shlex.quote(str(tmp_path / there))}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("http://r.example/a:1", "retag --src http://r.example/a:1 --dst r.example/a:1"),
        ("r.example/a :1", "retag --src 'r.example/a :1' --dst r.example/a:1"),
        ("r.example/A:1", "find --match r.example/A:1"),
    ],
)
def test_a_name_that_is_no_reference_may_be_that_of_an_image(text: str, line: str) -> None:
    with pytest.raises(BadReference) as refused:
        options.references([text], None)
    assert refused.value.hint.endswith(f"; where a host has this very name: fab -H HOST {line}")
