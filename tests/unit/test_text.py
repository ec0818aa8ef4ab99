"""Text of others reaches a terminal without tricks and a script exactly as it is, and ends one host at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from run_records import whole

from ctr_ferry import errors
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Manifest, Platform
from ctr_ferry.report import record, render
from ctr_ferry.report.hints import Asked
from ctr_ferry.report.outcome import Outcome, Result, Status, Table, View
from ctr_ferry.report.record import Record
from ctr_ferry.run import executor
from ctr_ferry.run.command import CommonOptions, fleet_wide, per_host
from ctr_ferry.run.line import Line
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.ssh import answer_memory
from ctr_ferry.ssh.exchange import Exchange
from ctr_ferry.text import shown, shown_name
from tasks import find, images
from tasks.remove import Removed, RemoveResult, Request, _ask

ROOT = Path(__file__).parents[2]
DIGEST = f"sha256:{'a' * 64}"
PLAIN = "r.example/app:1"
# Each looks like PLAIN, or moves the cursor, on one terminal or another.
DISGUISED = {
    "another colour": "r.example/app:1\x1b[8m-evil\x1b[0m",
    "over the line": "r.example/evil\rr.example/app:1",
    "backspaces": "r.example/app:2\b1",
    "an 8-bit escape": "r.example/app:1\x9b2K",
    "a title": "r.example/app:1\x1b]0;x\x07",
    "right to left": "r.example/\u202e1:ppa",
    "isolated": "r.example/app\u2066:1\u2069",
    "no width": "r.example/ap\u200bp:1",
    "a mark of order": "\ufeffr.example/app:1",
    "a soft hyphen": "r.example/ap\xadp:1",
    "a joiner": "r.example/ap\u034fp:1",
    "a filler": "r.example/app:1\u3164",
    "a selector": "r.example/app:1\ufe0f",
    "a line": "r.example/app:1\u2028",
    "a paragraph": "r.example/app:1\u2029",
    "a next line": "r.example/app:1\x85",
    "a blank": "r.example/app:1 ",
    "a wide blank": "r.example/app:1\xa0",
    "a letter of another script": "r.ex\u0430mple/app:1",
    "a half of a pair": "r.example/app:1\udc80",
    "deleted": "r.example/app:1\x7f",
    "beyond the first plane": "r.example/app:1\U000e0041",
}


class TestText:
    @pytest.mark.parametrize("name", DISGUISED.values(), ids=list(DISGUISED))
    def test_a_name_is_one_word_of_visible_ascii_and_no_other_name(self, name: str) -> None:
        assert shown_name(name) != shown_name(PLAIN) == PLAIN
        assert shown_name(name).isascii() and shown_name(name).isprintable() and " " not in shown_name(name)
        written_so = shown_name(name)  # somebody may give the escape itself as a name
        assert shown_name(written_so) != shown_name(name)

    def test_what_is_escaped_can_be_told(self) -> None:
        assert shown_name("a\u202eb\x1bc\\d\U000e0041") == r"a\u202eb\x1bc\\d\U000e0041"

    def test_lines_keep_what_is_visible(self) -> None:
        assert shown("é ü\t→ 名 \\n\nnext") == "é ü\t→ 名 \\n\nnext"

    def test_lines_lose_all_that_a_terminal_obeys_or_hides(self) -> None:
        assigned = (*range(0x33480), *range(0xDFFF0, 0xE0200), *range(sys.maxunicode - 9, sys.maxunicode + 1))
        every = [chr(code) for code in assigned if chr(code) not in "\n\t"]  # elsewhere Unicode has no character
        kept = [c for c in every if shown(c) == c]
        assert {unicodedata.category(c)[0] for c in kept if c != " "} <= {"L", "M", "N", "P", "S"}
        assert not {"\u2800", "\u3164", "\ufe0f", "\u034f"} & set(kept)


def listing(*names: str) -> Listing:
    rows = [f"{name} {OCI_MANIFEST} {DIGEST} 1.0 MiB linux/amd64 -" for name in names]
    return Listing.parse("k8s.io", "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows, ""]))


def rows_of(*names: str) -> images.ImagesResult:
    fields = {"namespace": "k8s.io", "digest": DIGEST, "size": 1, "platforms": ("linux/amd64",), "check": "complete"}
    complete: dict[str, Any] = {**fields, "complete": True, "unpacked": True}
    return images.ImagesResult(tuple(images.Row(reference=name, **complete) for name in names))


class TestNames:
    @pytest.mark.parametrize("name", [name for name in DISGUISED.values() if not name.endswith((" ", "\udc80"))])
    def test_that_differ_in_a_character_stay_two_in_a_listing(self, name: str) -> None:
        assert [image.name for image in listing(PLAIN, name).images] == [PLAIN, name]

    @pytest.mark.parametrize("how", ["images", "find", "images --csv", "remove"])
    def test_reach_no_terminal_as_they_are(self, how: str, capsys: pytest.CaptureFixture[str]) -> None:
        found = tuple(find.Place(name, DIGEST, "k8s.io", "/x.sock") for name in DISGUISED.values())
        places = find.FindResult((find.FoundImage("*", found),))
        gone = tuple(Removed(name, DIGEST, records=(name,), notes=(name,)) for name in DISGUISED.values())
        tables = {"images": images.tabulate({"n": rows_of(*DISGUISED.values())})}
        tables |= {"images --csv": tables["images"], "find": find.tabulate({"n": places})}
        results = {"remove": RemoveResult("k8s.io", gone), "find": places}
        done = Outcome("n", Status.OK, 1.0, results.get(how, rows_of(*DISGUISED.values())))
        render.table(render.Done(how, {"csv": "csv" in how}, [done], table=tables.get(how)))
        out, err = capsys.readouterr()
        assert out.count("\n") >= len(DISGUISED) and not err
        assert (out.isascii() or how == "remove") and out.replace("\n", "").isprintable()

    def test_reach_scripts_exactly_and_in_ascii(self, capsys: pytest.CaptureFixture[str]) -> None:
        render.document([render.Done("images", {}, [Outcome("n", Status.OK, 1.0, rows_of(*DISGUISED.values()))])], 0)
        out = capsys.readouterr().out
        assert out.isascii() and out.replace("\n", "").isprintable()
        told = json.loads(out)["commands"][0]["outcomes"][0]["result"]["images"]
        assert [row["reference"] for row in told] == list(DISGUISED.values())

    def test_are_asked_about_as_they_are(self) -> None:
        asked = []

        class Hosts:
            at_terminal, answers = True, dict[str, object]()

            def __iter__(self) -> Any:
                return iter(())

            def confirm(self, question: str) -> bool:
                asked.append(question)
                return True

        going = {"n": [Removed(name, DIGEST) for name in (PLAIN, *DISGUISED.values())]}
        _ask(cast(Any, Hosts()), going, Request(ref=[PLAIN]))
        lines = asked[0].split("\n")
        assert len(set(lines)) == len(DISGUISED) + 2
        assert asked[0].isascii() and all(line.isprintable() for line in lines)

    def test_in_errors_are_escaped_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        error = errors.InUse("in use: a\x1b[2Jb", detail="c\u202ed\x9b", hint="e\u200bf")
        render.table(render.Done("remove", {}, [Outcome.of("n", 1.0, error)]))
        render.failure(error, as_json=False)
        detail = "".join(capsys.readouterr())
        assert detail.replace("\n", "").isprintable() and r"c\u202ed\x9b" in detail


@dataclass(frozen=True)
class Faulty:
    """A result whose data, or lines, are a fault."""

    data: object = ""
    detail: str | None = ""
    status: Status = Status.OK

    def lines(self) -> list[str]:
        if self.detail is None:
            raise OverflowError("int too large to convert to float")
        return [self.detail]


class Odd:
    def __str__(self) -> str:
        raise RecursionError("maximum recursion depth exceeded")


FAULTS: dict[str, Callable[[], Faulty]] = {"lines": lambda: Faulty(detail=None), "data": lambda: Faulty(Odd())}


class Machine:
    """As much of a host as a fleet touches."""

    asked, failed, abandoned, dry_run = 0, False, False, False

    def __init__(self, name: str) -> None:
        self.name, self.notes = name, dict[str, None]()

    def begin(self, **_: object) -> None: ...

    def mark_failed(self) -> None:
        self.failed = True

    def close_quietly(self) -> None: ...


def run(command: Any, tmp_path: Path, *, as_json: bool) -> tuple[render.Done, dict[str, Any]]:
    hosts = cast(Any, {name: Machine(name) for name in "abc"})
    kept = Record(tmp_path / "20261124T031500Z-x-1f2e", {"hosts": list(hosts)}, pytest.fail)
    line = Line(command, {}, CommonOptions(json=as_json), None, Asked([("command", {})]))
    done, code = executor._on_fleet(line, hosts, partial(Fleet, workers=3, further=lambda _: ()), kept, last=True)
    executor._report([done], [line], code)
    kept.end(1)
    return done, whole(kept.folder)


def statuses(outcomes: list[dict[str, Any]]) -> dict[str, str]:
    return {each["host"]: each["error"]["kind"] if "error" in each else each["status"] for each in outcomes}


ONE_FAULT = {"a": "ok", "b": "internal-error", "c": "ok"}


@pytest.mark.parametrize("as_json", [False, True])
class TestOneHostsFault:
    @pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
    def test_in_being_shown_or_recorded_is_its_own(
        self, fault: Callable[[], Faulty], as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = per_host(lambda: None, help={})(
            lambda host, _: fault() if host.name == "b" else Faulty(detail="well")
        )
        _, recorded = run(command, tmp_path, as_json=as_json)
        out = capsys.readouterr().out
        assert statuses(recorded["commands"][0]["outcomes"]) == ONE_FAULT
        if as_json:
            assert statuses(json.loads(out)["commands"][0]["outcomes"]) == ONE_FAULT
        else:
            assert "well" in out and "internal-error" in out

    def test_in_the_table_of_all_is_its_own(
        self, as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def tabulate(answers: Mapping[str, Result | errors.FerryError]) -> Table:
            cells = {host: answer.data + "!" for host, answer in answers.items() if isinstance(answer, Faulty)}  # type: ignore[operator]
            return Table(("HOST", "DATA"), tuple(cells.items()))

        command = fleet_wide(lambda: None, help={}, tabulate=tabulate)(
            lambda fleet, _: fleet.each(lambda host: Faulty(5 if host.name == "b" else "well"))
        )
        _, recorded = run(command, tmp_path, as_json=as_json)
        assert statuses(recorded["commands"][0]["outcomes"]) == ONE_FAULT
        out = capsys.readouterr().out
        if as_json:
            assert statuses(json.loads(out)["commands"][0]["outcomes"]) == ONE_FAULT
        else:
            assert out.count("well!") == 2 and "internal-error" in out

    def test_in_what_a_command_makes_of_all_leaves_what_each_host_said(
        self, as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def body(fleet: Fleet, _: object) -> dict[str, Any]:
            fleet.each(lambda _: Faulty("well"))
            raise TypeError("unhashable")

        done, recorded = run(fleet_wide(lambda: None, help={})(body), tmp_path, as_json=as_json)
        assert done.failure and done.failure.kind == "internal-error"
        assert set(statuses(recorded["commands"][0]["outcomes"]).values()) == {"ok"}
        out, err = capsys.readouterr()
        assert json.loads(out) if as_json else "TypeError" in err


def test_halves_of_pairs_are_written_down(tmp_path: Path) -> None:
    kept = Record(tmp_path / "20261124T031500Z-x-1f2e", {"hosts": ["\udc80"]}, pytest.fail)
    kept.command("x", {"match": "\udcff"}, dry_run=False)
    kept.outcome(Outcome("\udc80", Status.OK, 1.0, Faulty("\ud800")))
    kept.end(0)
    assert whole(kept.folder)["commands"][0]["outcomes"][0]["result"]["data"] == "\ud800"


def test_the_log_of_a_host_can_be_shown() -> None:
    assert record._log_text("a\u202eb\x1b[2J\x85\n".encode()) == "a\\u202eb\\x1b[2J\\x85\n"


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_what_the_locale_cannot_write_is_escaped(encoding: str) -> None:
    code = (
        "from ctr_ferry.report import render; from ctr_ferry.report.outcome import View; render.open_streams();"
        "render.table(render.Done('x', {}, [], view=View(None, text='a\\u540db\\udc80')));"
        "render.note('a\\u540db')"
    )
    env = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True)
    letter = "名".encode(encoding, "backslashreplace")
    assert done.stdout == b"a" + letter + b"b\\udc80\n"
    assert done.stderr == b"a" + letter + b"b\n"


def test_what_a_record_shows_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(render.Done("show", {}, [], view=View(None, text="\x1b]0;title\x07")))
    assert capsys.readouterr().out == "\\x1b]0;title\\x07\n"


def descriptor(**changed: object) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 1, **changed}


@pytest.mark.parametrize(
    "size", [-1, 1 << 63, 10**400, 1.0, float("inf"), float("nan"), "1", None, True, [], {}], ids=repr
)
def test_a_size_is_an_integer_that_a_file_may_have(size: object) -> None:
    for document in ({"config": descriptor(size=size)}, {"manifests": [descriptor(size=size)]}):
        with pytest.raises(ValueError, match="not a descriptor"):
            Manifest.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": 5},
        {"manifests": {"a": 1}},
        {"manifests": [5]},
        {"manifests": [None]},
        {"config": 5},
        {"config": descriptor(), "layers": 5},
        {"config": descriptor(), "layers": [[]]},
        {"config": descriptor(digest=["x"])},
        {"config": descriptor(mediaType={"a": 1})},
        {"config": descriptor(mediaType="a" * 1000)},
        {"manifests": [descriptor(platform=5)]},
        {"manifests": [descriptor(platform={"os": 5})]},
        {"manifests": [descriptor(platform={"os": "a" * 1000})]},
        [],
        5,
        None,
    ],
    ids=repr,
)
def test_what_is_no_manifest_is_none(document: object) -> None:
    with pytest.raises(ValueError, match=r"not a descriptor|neither|list"):
        Manifest.parse(json.dumps(document).encode())


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"config":' * 100_000, b'{"size":' + b"9" * 100_000 + b"}", b"\xff"])
def test_json_that_python_will_not_read_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(ValueError):
        Manifest.parse(raw)


def test_the_largest_size_and_an_odd_platform_are_read() -> None:
    odd = {"os": "linux", "architecture": "amd\ud80064", "variant": "\u202e"}
    child = descriptor(size=(1 << 63) - 1, platform=odd)
    raw = json.dumps({"mediaType": OCI_INDEX, "manifests": [child]}).encode()
    (found,) = Manifest.parse(raw).children
    assert found.size == (1 << 63) - 1
    assert found.platform == Platform("linux", r"amd\ud80064", r"\u202e")


class TestRoom:
    def test_of_one_answer_is_bounded_and_the_error_names_the_host(self) -> None:
        here = answer_memory.AnswerMemory()
        here.reserve("a", answer_memory.MOST_OF_ONE)
        with pytest.raises(errors.AnswerTooLarge, match="b printed more than 16 MiB"):
            here.reserve("b", answer_memory.MOST_OF_ONE + 1)

    def test_is_asked_for_as_an_answer_comes(self) -> None:
        class Endless:
            def recv_ready(self) -> bool:
                return True

            def recv_stderr_ready(self) -> bool:
                return False

            def recv(self, size: int) -> bytes:
                return bytes(size)

        exchange = Exchange(cast(Any, Endless()), 1, 1, reserve=partial(answer_memory.AnswerMemory().reserve, "a"))
        with pytest.raises(errors.AnswerTooLarge, match="a printed more"):
            for _ in range(answer_memory.MOST_OF_ONE >> 17):
                exchange._drain()
        assert len(exchange.stdout) < answer_memory.MOST_OF_ONE + (1 << 20)

    def test_of_all_is_bounded_but_never_for_a_host_that_says_little(self) -> None:
        here = answer_memory.AnswerMemory(most=answer_memory.MOST_OF_ONE)
        here.reserve("a", answer_memory.MOST_OF_ONE)
        with pytest.raises(errors.AnswerTooLarge, match=r"b printed .* all hosts together"):
            here.reserve("b", answer_memory._ALWAYS_ALLOWED + 1)
        for number in range(100):
            here.reserve(f"c{number}", answer_memory._ALWAYS_ALLOWED)

    def test_has_a_share_for_each_host_whatever_other_hosts_printed(self) -> None:
        here = answer_memory.AnswerMemory()
        here.divide(9)
        for number in range(8):
            here.reserve(f"greedy{number}", answer_memory.MOST_OF_ONE)
        here.reserve("honest", (128 << 20) // 9)
        with pytest.raises(errors.AnswerTooLarge, match="honest printed"):
            here.reserve("honest", answer_memory.MOST_OF_ONE)
        here.divide(8)
        here.reserve("honest", answer_memory.MOST_OF_ONE)

    def test_is_a_hosts_longest_answer_until_its_work_is_done(self) -> None:
        here = answer_memory.AnswerMemory(most=answer_memory.MOST_OF_ONE)
        for _ in range(10):
            for much in range(0, answer_memory.MOST_OF_ONE // 2, 1 << 20):
                here.reserve("a", much)
        here.reserve("b", answer_memory.MOST_OF_ONE // 2)
        here.free("a")
        here.reserve("b", answer_memory.MOST_OF_ONE)
        here.free("nobody")
