"""Outcomes, exit statuses, and what people and scripts see of them."""

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

from ctr_ferry import errors
from ctr_ferry.ctr.health import Finding, Health
from ctr_ferry.report import render
from ctr_ferry.report.outcome import Outcome, Result, Status, Table, as_dry_run, exit_code
from ctr_ferry.secrets import Secret
from tasks.doctor import DoctorResult

CLONE = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "ab" * 32


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


def test_a_result_has_a_status_and_lines() -> None:
    assert isinstance(Did(Status.OK), Result)


def test_an_error_makes_a_host_failed_or_unreachable_or_skipped() -> None:
    assert [o.status for o in OUTCOMES[2:]] == [Status.FAILED, Status.UNREACHABLE, Status.SKIPPED]


def test_a_failed_outcome_keeps_the_result_of_the_work_before_the_error() -> None:
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
def test_the_exit_status_is_that_of_the_worst_host(statuses: list[str], code: int) -> None:
    assert exit_code([Outcome("n", Status(status), 0.0) for status in statuses]) == code


@pytest.mark.parametrize("force", ["", "1"])
def test_the_table_has_a_row_per_host_and_no_colours_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, force: str
) -> None:
    if force:
        monkeypatch.setenv("FORCE_COLOR", force)
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


def test_as_dry_run_replaces_changed_everywhere_in_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    several = as_dry_run(Several((Did(Status.CHANGED), Did(Status.UNCHANGED))))
    failed = as_dry_run(errors.SomeFailed("1 of 2", result=Several((Did(Status.CHANGED), Did(Status.FAILED)))))
    outcomes = [Outcome.of("one", 0.25, several), Outcome.of("two", 1.0, failed)]
    assert [outcome.status for outcome in outcomes] == [Status.WOULD_CHANGE, Status.FAILED]
    assert [i["status"] for o in outcomes for i in o.to_json()["result"]["images"]] == [
        *("would-change", "unchanged", "would-change", "failed")
    ]
    assert several.word == "changed"  # plain text stays
    assert exit_code(outcomes[:1]) == 0
    render.table(render.Done("retag", {}, outcomes, dry_run=True))
    assert [line.split()[1:2] for line in capsys.readouterr().out.splitlines() if line.startswith("one")] == [
        ["would-change"]
    ]


def test_a_hosts_status_is_changed_if_any_image_was_changed() -> None:
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


def test_an_error_before_any_host_is_on_stderr_and_in_the_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.UnknownHost("no such host", detail="a\nb", hint="try another")
    render.failure(error, as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["unknown-host: no such host", "  said: a", "  said: b", "  try: try another"]
    render.failure(error, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["exit"] == 2 and document["commands"] == []
    assert document["error"]["kind"] == "unknown-host"


def test_a_secret_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_reader_that_closes_its_pipe_is_no_error(tmp_path: Path) -> None:
    many = {"all": {"hosts": {f"h{n}": None for n in range(3000)}}}
    (tmp_path / "hosts.yaml").write_text(json.dumps(many))
    done = fab("hosts | head -1", CTR_FERRY_INVENTORY=str(tmp_path / "hosts.yaml"))
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_a_stdout_that_cannot_be_written_to_gives_a_note_and_exit_status_1() -> None:
    done = fab("hosts > /dev/full")
    assert (done.returncode, done.stderr) == (1, "stdout cannot be written to: No space left on device\n")


@pytest.mark.parametrize("words", ["-H node1 hosts -H node2", "-H node1 check --ref a --hosts node2"])
def test_a_second_option_for_hosts_is_refused(words: str) -> None:
    done = fab(words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "-H is given twice" in done.stderr


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        ("-H my-Host images -H b", "my-Host,b"),
        ("-H node-H1 images --hosts=b", "node-H1,b"),
        ("-Ha, images --hosts 'b,c'", "a,b,c"),
    ],
)
def test_hosts_given_twice_are_joined_in_the_hint(words: str, hosts: str) -> None:
    assert fab(words).stderr.splitlines()[1].startswith(f"  try: name all hosts in one, such as -H {hosts}: ")


def test_a_second_option_for_hosts_that_names_none_is_refused() -> None:
    assert fab("-H '' images -H ''").stderr.splitlines()[1].startswith("  try: name all hosts in one")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    assert fab(f"hosts {closed}").returncode == 0


class Narrow(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True


def test_a_table_on_a_narrow_terminal_folds_cells_and_shortens_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("REFERENCE", "DIGEST", "NAMESPACE", "HOSTS", "NOTE")
    name, hosts = "registry.example/library/cambricon-k8s-device-plugin:v1.1.3", ", ".join(f"h{n}" for n in range(40))
    table = Table(columns, ((name, DIGEST, "k8s.io", hosts, "a note"),))
    screen = Narrow()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    render.table(render.Done("find", {}, [], table=table))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert {*columns, name, DIGEST[7:19], "k8s.io", "h39"} <= set(shown.replace(",", " ").split())
    assert DIGEST not in shown


def test_a_row_names_all_its_hosts_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = [f"h{n}" for n in range(9)] + list("abcd")
    render.table(render.Done("run", {}, [Outcome.of(host, 1.0, errors.Unreachable("no")) for host in hosts]))
    assert capsys.readouterr().out.splitlines()[1].startswith("h[0-8], a, b, c, d ")


@pytest.mark.parametrize("value", ["many", "0"])
def test_a_wrong_setting_in_the_environment_is_named(value: str) -> None:
    done = fab("hosts", FABRIC_FLEET_WORKERS=value)
    assert (done.returncode, done.stdout) == (2, "")
    assert "FABRIC_FLEET_WORKERS " in done.stderr


def test_results_that_a_table_shows_are_not_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    result = DoctorResult((Finding("clock", Health.FAIL, "90 s ahead", "set it"),))
    assert result.lines() == ["fail clock: 90 s ahead (set it)"]
    outcome = Outcome.of("h1", 1.0, errors.CommandFailed("one finding is bad", result=result))
    render.table(render.Done("doctor", {}, [outcome], table=Table(("FINDING",), (("clock: 90 s ahead",),))))
    assert capsys.readouterr().out.count("90 s ahead") == 1


@pytest.mark.parametrize(
    ("how", "hosts"),
    [({}, "@failed"), ({"looks": True}, "a,b,c,d,e,f,g,h,i"), ({"dry_run": True}, "a,b,c,d,e,f,g,h,i")],
)
def test_a_hint_for_many_hosts_names_them_where_the_run_is_none_that_a_pattern_means(
    capsys: pytest.CaptureFixture[str], how: dict[str, bool], hosts: str
) -> None:
    wrong = errors.CommandFailed("no", hint="fab -H HOST doctor")
    render.table(render.Done("doctor", {}, [Outcome.of(host, 1.0, wrong) for host in "abcdefghi"], **how))  # type: ignore[arg-type]
    assert f"try: fab -H {hosts} doctor" in capsys.readouterr().out
