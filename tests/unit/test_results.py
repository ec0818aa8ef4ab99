"""Map files, options, outcomes, exit statuses, and what is shown of them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoke.parser import Parser, ParserContext

import fabfile
from ctr_ferry import errors
from ctr_ferry.ctr.health import Finding, Health
from ctr_ferry.images.mappings import Pair, read_map, refuse_same
from ctr_ferry.report import render
from ctr_ferry.report.outcome import Outcome, Result, Status, Table, as_dry_run, exit_code
from ctr_ferry.run.command import CommonOptions, Kind, on_control_machine, per_host
from ctr_ferry.secrets import Secret
from tasks.doctor import DoctorResult

CLONE = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "ab" * 32
ARGUMENTS = {name: getattr(fabfile, name).get_arguments() for name in fabfile.__all__}  # once: it uses help texts up


def a_map(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "map"
    file.write_text(text)
    return file


def test_a_map_has_two_columns_comments_and_blank_lines(tmp_path: Path) -> None:
    file = a_map(tmp_path, f"# all of them\n\nold/a:1\tnew.example/a:1  # this one\n  {DIGEST}   new.example/b\n")
    assert [(p.src, str(p.dst)) for p in read_map(file)] == [
        ("old/a:1", "new.example/a:1"),
        (DIGEST, "new.example/b"),
    ]


def test_all_wrong_lines_of_a_map_are_told_at_once(tmp_path: Path) -> None:
    text = f"a b\nonly\na b c\nUPPER r/x\na r/y@{DIGEST}\nc r/ok:1\nd r/ok:1\nc r/ok:1\n"
    file = a_map(tmp_path, text)
    with pytest.raises(errors.UsageError, match="5 wrong lines") as wrong:
        read_map(file)
    assert [line.split(": ")[0] for line in wrong.value.detail.splitlines()] == [f"{file}:{n}" for n in (2, 3, 4, 5, 7)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("r/a:1 r/b:1\nr/b:1 r/c:1\n", "docker.io/r/b:1"),
        ("r.example/b:1 r.example/c:1\nr.example/a:1 r.example/b\n", "r.example/b:1"),
        ("r.example/a:1 r.example/b:1\nr.example/b:1 r.example/a:1\n", "r.example/a:1"),
    ],
)
def test_a_destination_of_a_map_is_no_source_of_another_line(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        read_map(a_map(tmp_path, text))
    assert f"{name} is a source and a destination" in refused.value.detail
    assert read_map(a_map(tmp_path, text), apart=True)  # another namespace, or another host


def test_a_line_twice_in_a_map_is_one_image(tmp_path: Path) -> None:
    assert len(read_map(a_map(tmp_path, "a r/x:1\na r/x:1\n"))) == 1


def test_tags_that_destinations_take_from_their_sources_keep_them_apart(tmp_path: Path) -> None:
    pairs = read_map(a_map(tmp_path, "old/a:1 new.example/a\nold/a:2 new.example/a\n"))
    assert [pair.src for pair in pairs] == ["old/a:1", "old/a:2"]
    with pytest.raises(errors.UsageError, match="wrong lines"):
        read_map(a_map(tmp_path, "old/a:1 new.example/a:1\nold/b:1 new.example/a\n"))


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_map_without_an_image_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.UsageError, match="names no image"):
        read_map(a_map(tmp_path, text))


def test_a_map_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("nosuch", "bytes", "."):
        with pytest.raises(errors.UsageError, match="cannot be read"):
            read_map(tmp_path / name)


@pytest.mark.parametrize(
    ("src", "dst", "same"),
    [
        ("r/a:1", "docker.io/r/a:1", True),
        ("busybox", "docker.io/library/busybox:latest", True),
        ("busybox:1", "library/busybox", True),
        ("busybox:1", "busybox:2", False),
        (DIGEST, "busybox:2", False),
        (f"busybox@{DIGEST}", "busybox:2", False),
    ],
)
def test_a_source_that_is_its_own_destination_is_refused(src: str, dst: str, same: bool) -> None:
    pair = Pair.parse(src, dst)
    assert pair.same is same
    if same:
        with pytest.raises(errors.UsageError, match="same name"):
            refuse_same([pair])
    else:
        refuse_same([pair])


def arguments(argv: list[str]) -> dict[str, object]:
    """A command line as Invoke takes it apart."""
    context = ParserContext("retag", args=ARGUMENTS["retag"])
    (parsed,) = Parser(contexts=[context]).parse_argv(["retag", *argv])
    return parsed.as_kwargs


def test_only_the_namespace_has_a_short_flag() -> None:
    short = {name for args in ARGUMENTS.values() for a in args for name in a.names if len(name) == 1}
    assert short == {"n"}


def test_options_are_taken_by_their_names() -> None:
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


def test_the_common_options_are_parted_from_a_commands_own() -> None:
    @per_host(lambda **own: own, help={})
    def nothing(host: object, request: object) -> None:
        """Does nothing."""

    options = {"json": True, "dry_run": False, "serial": "5", "limit_failures": "10%", "src": "a"}
    common, own = nothing.read(options)
    assert common == CommonOptions(json=True, dry_run=False, serial=5, limit_failures=0.1)
    assert own == {"src": "a"}


NEEDED = {"check": {"ref": "a"}, "push": {"ref": "a/b:1"}, "copy": {"from_": ["a"], "ref": ["b"]}, "show": {}}


@pytest.mark.parametrize(
    ("command", "name", "option"),
    [("check", "digest", "--digest"), ("push", "as_", "--as"), ("copy", "to_namespace", "--to-namespace"),
     ("copy", "ref", "--ref"), ("show", "run", "--run"), ("show", "host", "--host")],
)  # fmt: skip
def test_an_option_whose_value_is_empty_is_refused_rather_than_taken_for_none(
    command: str, name: str, option: str
) -> None:
    empty = ["b", ""] if name == "ref" else ""
    with pytest.raises(errors.UsageError, match=f"{option} is empty"):
        getattr(fabfile, command).read({**NEEDED[command], name: empty})


def test_each_command_says_whether_it_only_reads() -> None:
    commands = {name: getattr(fabfile, name) for name in fabfile.__all__ if name != "doctor"}
    on_hosts = {name: command for name, command in commands.items() if command.kind is not Kind.CONTROL_MACHINE}
    assert {name for name, command in on_hosts.items() if command.read_only(None)} == {
        "check",
        "find",
        "images",
        "registry",
    }
    doctor = fabfile.doctor
    assert [doctor.read_only(doctor.parse(clean=clean)) for clean in (False, True)] == [True, False]


def common(serial: str | None = None, limit_failures: str | None = None) -> CommonOptions:
    return CommonOptions.parse(json=False, dry_run=False, serial=serial, limit_failures=limit_failures)


def test_limits_are_numbers_or_shares() -> None:
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
    assert names == {"json"}
    assert nothing.read({"json": True})[0] == CommonOptions(json=True)


@dataclass(frozen=True)
class Did:
    status: Status
    secret: object = None

    def lines(self) -> list[str]:
        return [f"did [bold]{self.status}[/bold]"]


FAILED = errors.ImageNotFound("no image a", detail="ctr: not found\nmore", hint="look")
OUTCOMES = [
    Outcome.of("one", 0.25, Did(Status.CHANGED)),
    Outcome.of("two", 1.0, Did(Status.UNCHANGED)),
    Outcome.of("three", 2.0, FAILED),
    Outcome.of("four", 3.0, errors.ConnectTimeout("no answer")),
    Outcome.of("five", 0.0, errors.NotStarted("an earlier command failed here")),
]


def test_a_result_is_what_says_its_status_and_lines() -> None:
    assert isinstance(Did(Status.OK), Result)


def test_an_error_makes_a_host_failed_or_unreachable_or_skipped() -> None:
    assert [o.status for o in OUTCOMES[2:]] == [Status.FAILED, Status.UNREACHABLE, Status.SKIPPED]


def test_a_failure_keeps_what_was_done_before_it() -> None:
    error = errors.SomeFailed("1 of 2", result=Did(Status.CHANGED))
    assert Outcome.of("n", 0.0, error).result == Did(Status.CHANGED)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 0),
        (["changed", "unchanged", "ok"], 0),
        (["ok", "skipped"], 0),
        (["ok", "failed"], 1),
        (["failed", "unreachable"], 1),
        (["ok", "unreachable", "skipped"], 4),
    ],
)
def test_the_exit_status_is_the_worst_hosts(statuses: list[str], code: int) -> None:
    assert exit_code([Outcome("n", Status(status), 0.0) for status in statuses]) == code


@pytest.mark.parametrize("force", ["", "1"])
def test_the_table_has_a_line_a_host_and_no_colours_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, force: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", force) if force else None
    monkeypatch.setenv("COLUMNS", "20")
    render.table(render.Done("retag", {}, OUTCOMES, dry_run=False))
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == [
        "HOST", "one", "two", "three", "four", "five",
    ]  # fmt: skip
    assert "did [bold]changed[/bold]" in out
    assert "image-not-found: no image a" in out and "try: look" in out and "said: " in out
    assert all(line == line.rstrip() for line in out.splitlines())


@dataclass(frozen=True, slots=True)
class Several:
    images: tuple[Did, ...]
    word: str = "changed"

    @property
    def status(self) -> Status:
        return Status.of_all(image.status for image in self.images)

    def lines(self) -> list[str]:
        return [str(image.status) for image in self.images]


def test_a_dry_run_says_would_change_wherever_it_says_changed(capsys: pytest.CaptureFixture[str]) -> None:
    several = as_dry_run(Several((Did(Status.CHANGED), Did(Status.UNCHANGED))))
    failed = as_dry_run(errors.SomeFailed("1 of 2", result=Several((Did(Status.CHANGED), Did(Status.FAILED)))))
    outcomes = [Outcome.of("one", 0.25, several), Outcome.of("two", 1.0, failed)]
    assert [outcome.status for outcome in outcomes] == [Status.WOULD_CHANGE, Status.FAILED]
    assert [i["status"] for o in outcomes for i in o.to_json()["result"]["images"]] == [
        *("would-change", "unchanged", "would-change", "failed")
    ]
    assert several.word == "changed"  # text of others stays
    assert exit_code(outcomes[:1]) == 0
    render.table(render.Done("retag", {}, outcomes, dry_run=True))
    assert [line.split()[1:2] for line in capsys.readouterr().out.splitlines() if line.startswith("one")] == [
        ["would-change"]
    ]


def test_of_all_images_the_one_that_was_changed_counts() -> None:
    assert Status.of_all([Status.UNCHANGED, Status.WOULD_CHANGE]) is Status.WOULD_CHANGE
    assert Status.of_all([Status.FAILED, Status.CHANGED]) is Status.CHANGED
    assert Status.of_all([]) is Status.of_all([Status.FAILED]) is Status.UNCHANGED


def test_json_is_one_document_with_every_command_and_host(capsys: pytest.CaptureFixture[str]) -> None:
    done = render.Done("retag", {"src": "é", "file": Path("x")}, OUTCOMES, dry_run=False)
    render.document([done, done], 1)
    document = json.loads(capsys.readouterr().out)
    assert document["exit"] == 1
    first, second = document["commands"]
    assert first == second and first["command"] == "retag" and first["arguments"] == {"src": "é", "file": "x"}
    one, _, three, four, five = first["outcomes"]
    assert one == {
        "host": "one", "status": "changed", "seconds": 0.25, "result": {"status": "changed", "secret": None},
    }  # fmt: skip
    assert three["error"]["kind"] == "image-not-found" and three["error"]["hint"] == "look"
    assert "result" not in three
    assert four["status"] == "unreachable"
    assert five["status"] == "skipped" and five["error"]["kind"] == "not-started"


def test_an_error_before_any_host_is_on_stderr_and_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.UnknownHost("no such host", detail="a\nb", hint="try another")
    render.failure(error, as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["unknown-host: no such host", "  said: a", "  said: b", "  try: try another"]
    render.failure(error, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["exit"] == 2 and document["commands"] == []
    assert document["error"]["kind"] == "unknown-host"


def test_a_secret_never_shows(capsys: pytest.CaptureFixture[str]) -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>10}", str([secret]), str({1: secret})]
    with pytest.raises(TypeError) as error:
        secret + "x"  # type: ignore[operator]
    shown.append(str(error.value))
    did = Did(Status.OK, secret)
    shown += [repr(did), str(dataclasses.asdict(did))]
    render.document([render.Done("x", {"password": secret}, [Outcome.of("n", 0.0, did)], dry_run=False)], 0)
    shown.append(capsys.readouterr().out)
    assert not [text for text in shown if "hunter2" in text]
    assert all("***" in text for text in shown[:6])
    assert not hasattr(secret, "__dict__")


def fab(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `fab` in a shell, with the tracked inventory."""
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m fabric {command}"
    words = ["bash", "-c", line]
    return subprocess.run(words, cwd=CLONE, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_a_reader_that_had_enough_is_no_error(tmp_path: Path) -> None:
    many = {"all": {"hosts": {f"h{n}": None for n in range(3000)}}}
    (tmp_path / "hosts.yaml").write_text(json.dumps(many))
    done = fab("hosts | head -1", CTR_FERRY_INVENTORY=str(tmp_path / "hosts.yaml"))
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_a_stdout_that_cannot_be_written_to_is_told_and_fails() -> None:
    done = fab("hosts > /dev/full")
    assert (done.returncode, done.stderr) == (1, "stdout cannot be written to: No space left on device\n")


@pytest.mark.parametrize("words", ["-H node1 hosts -H node2", "-H node1 check --ref a --hosts node2"])
def test_hosts_that_are_given_twice_are_refused(words: str) -> None:
    done = fab(words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "-H is given twice" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_hindrance(closed: str) -> None:
    assert fab(f"hosts {closed}").returncode == 0


class Narrow(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True


def test_a_terminals_table_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("REFERENCE", "DIGEST", "NAMESPACE", "HOSTS", "NOTE")
    name, hosts = "registry.example/library/cambricon-k8s-device-plugin:v1.1.3", ", ".join(f"h{n}" for n in range(40))
    table = Table(columns, ((name, DIGEST, "k8s.io", hosts, "a note"),))
    screen = Narrow()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    render.table(render.Done("find", {}, [], table=table))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert {*columns, name, DIGEST[:19], "k8s.io", "h39"} <= set(shown.replace(",", " ").split())
    assert DIGEST not in shown


def test_hosts_that_failed_are_all_named(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = [f"h{n}" for n in range(9)]
    render.table(render.Done("run", {}, [Outcome.of(host, 1.0, errors.Unreachable("no")) for host in hosts]))
    assert capsys.readouterr().out.splitlines()[1].startswith(", ".join(hosts))


@pytest.mark.parametrize("value", ["many", "0"])
def test_a_setting_of_the_environment_that_is_wrong_is_named(value: str) -> None:
    done = fab("hosts", FABRIC_FLEET_WORKERS=value)
    assert (done.returncode, done.stdout) == (2, "")
    assert "FABRIC_FLEET_WORKERS " in done.stderr


def test_what_a_table_told_is_not_said_again_but_the_record_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = DoctorResult((Finding("clock", Health.FAIL, "90 s ahead", "set it"),))
    assert result.lines() == ["fail clock: 90 s ahead (set it)"]
    outcome = Outcome.of("h1", 1.0, errors.CommandFailed("one finding is bad", result=result))
    render.table(render.Done("doctor", {}, [outcome], table=Table(("FINDING",), (("clock: 90 s ahead",),))))
    assert capsys.readouterr().out.count("90 s ahead") == 1
