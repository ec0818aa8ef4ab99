"""A script that is cut off rolls back the names that it gave and nothing else; run in sh with a ctr of a few lines."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from cut_off import put_ctr, run_cut
from records import record

from ctr_ferry.ctr import naming, roll_back
from ctr_ferry.ctr.commands import CRI_MANAGED, Ctr
from ctr_ferry.ctr.methods import TAKEN, ByArchive, ByBlobs, ByIndex, ByTag, Method, Naming
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.roll_back import Given
from ctr_ferry.ctr.verdict import numbers
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import OCI_MANIFEST, Descriptor
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Answer

A, B, CONFIG, OLDER = (f"sha256:{letter * 64}" for letter in "abcd")
OLD, NEW = "old.example/app:1", "new.example/a.b/app:2"
TARGET = Descriptor(OCI_MANIFEST, A, 1234)
RUN = "ctr-ferry.20260101T000000Z-abcd"
VERSIONS = ("1.1.8", "1.2.6", "1.6.20", "2.1.9")


class Host:
    """A folder with that ctr."""

    def __init__(self, folder: Path, version: str, *, cri: bool = False) -> None:
        self.folder, self.cri = folder, cri
        put_ctr(folder)
        parsed = Version.parse(record(version, "--version").stdout)
        assert parsed
        ctr = Ctr((str(folder / "ctr"),), f"{folder}/x.sock", Capabilities.of_version(parsed))
        self.place = Place(ctr, "k8s.io", "k8s.io", "/root", RUN, cri)

    def has(self, **names: str) -> None:
        """Begins with these: a label of somebody else is on each."""
        (self.folder / "names").write_text("".join(f"{name} {digest} own=1\n" for name, digest in names.items()))

    def apply(self, *namings: Naming, place: Place | None = None, **env: str) -> dict[str, Answer]:
        """Runs a whole script, clean-up included; no answers where it was cut off."""
        script = naming.script(place or self.place, namings)
        done = run_cut(script, **({"CRI": CONFIG} if self.cri else {}), **env)
        assert (done.returncode == 143) == ("CUT" in env and "UNCUT" not in env), done.stderr
        return {} if done.returncode == 143 else script.read("MARK", done.stdout.encode(), done.stderr.encode())

    @property
    def names(self) -> Mapping[str, str]:
        """Digest by name."""
        rows = (self.folder / "names").read_text().splitlines()
        assert len({row.split()[0] for row in rows}) == len(rows)
        return {row.split()[0]: row.split()[1] for row in rows}

    @property
    def labels(self) -> str:
        """Of the new name."""
        return next(row.split()[2] for row in (self.folder / "names").read_text().splitlines() if row.startswith(NEW))


@pytest.fixture(autouse=True)
def no_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "MOMENT", ":")


def asked(method: Method, *, replaces: bool = False) -> Naming:
    name = Reference.parse(NEW)
    match method:
        case Method.TAG:
            return ByTag(name=name, source=OLD, target_digest=A, replaces=replaces)
        case Method.INDEX:
            return ByIndex(name=name, target=TARGET, replaces=replaces)
        case Method.BLOBS:
            return ByBlobs(name=name, target=TARGET, replaces=replaces, complete=True, unpack=True)
    return ByArchive(name=name, target=TARGET, replaces=replaces, source=OLD, source_digest=A)


NEWEST = [("2.1.9", method) for method in (Method.TAG, Method.INDEX, Method.BLOBS, Method.ARCHIVE)]
EVERY = [*NEWEST, ("1.6.20", Method.BLOBS), ("1.2.6", Method.INDEX), ("1.2.6", Method.BLOBS), ("1.1.8", Method.INDEX)]


@pytest.mark.parametrize(("version", "method"), EVERY)
@pytest.mark.parametrize("cri", [False, True])
def test_a_name_that_proved_right_stays_and_nothing_else(
    version: str, method: Method, cri: bool, tmp_path: Path
) -> None:
    host = Host(tmp_path, version, cri=cri)
    host.has(**{OLD: A})
    answers = host.apply(asked(method))
    assert answers["name-0"].ok and numbers(answers["kept"]) == {0}
    assert {name: digest for name, digest in host.names.items() if name != CONFIG} == {OLD: A, NEW: A}


MOMENTS = [("import", "between"), ("import", "after"), ("tag", "before"), ("tag", "after"), ("check", "after")]


def comes(version: str, method: Method, verb: str) -> bool:
    """Whether such a script does it."""
    has_tag = version >= "1.3"
    return {"tag": has_tag, "import": method is not Method.TAG, "check": method is Method.BLOBS}[verb]


CUTS = [(*each, *moment) for each in EVERY for moment in MOMENTS if comes(*each, moment[0])]


@pytest.mark.parametrize(("version", "method", "verb", "when"), CUTS)
def test_a_script_that_is_cut_off_rolls_back_what_it_gave(
    version: str, method: Method, verb: str, when: str, tmp_path: Path
) -> None:
    host = Host(tmp_path, version, cri=True)
    host.has(**{OLD: A})
    host.apply(asked(method), CUT=verb, CUT_AT=when)
    assert {name: digest for name, digest in host.names.items() if name != CONFIG} == {OLD: A}


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("version", ["1.2.6", "2.1.9"])
@pytest.mark.parametrize("method", [Method.INDEX, Method.BLOBS])
def test_a_name_that_is_moved_is_there_at_every_moment_with_the_old_or_the_new_digest(
    version: str, method: Method, when: str, tmp_path: Path
) -> None:
    host = Host(tmp_path, version)
    host.has(**{OLD: A, NEW: B})
    assert " tag " not in naming.script(host.place, [asked(method, replaces=True)]).steps["name-0"]
    host.apply(asked(method, replaces=True), CUT="import", CUT_AT=when)
    assert host.names.keys() == {OLD, NEW} and host.names[NEW] in (A, B)
    assert host.labels == "own=1"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_moved_name_keeps_the_labels_of_others_and_says_what_it_was(version: str, tmp_path: Path) -> None:
    host = Host(tmp_path, version)
    host.has(**{OLD: A, NEW: B})
    answers = host.apply(asked(Method.INDEX, replaces=True))
    assert (host.names[NEW], host.labels) == (A, "own=1")
    before = naming.was(host.place, answers).get(NEW)
    assert before and before.digest == B


@pytest.mark.parametrize("theirs", [A, B], ids=["the same", "another"])
@pytest.mark.parametrize(
    ("verb", "method"), [("tag", each) for _, each in NEWEST] + [("import", each) for _, each in NEWEST[1:]]
)
def test_a_name_that_somebody_else_gives_right_before_us_stays_theirs(
    method: Method, verb: str, theirs: str, tmp_path: Path
) -> None:
    host = Host(tmp_path, "2.1.9")
    host.has(**{OLD: A})
    answers = host.apply(asked(method), CUT=verb, CUT_AT="before", OTHER=f"{NEW} {theirs} -", UNCUT="1")
    detail = answers["name-0"]
    assert detail.exit == TAKEN or f'"{NEW}": already exists' in detail.stderr
    assert numbers(answers["kept"]) == frozenset()
    assert host.names == {OLD: A, NEW: theirs}


@pytest.mark.parametrize("theirs", [A, B], ids=["the same", "another"])
@pytest.mark.parametrize("version", ["1.1.8", "1.2.6"])
def test_up_to_1_2_of_two_runs_that_create_a_name_at_once_the_one_that_failed_leaves_it(
    version: str, theirs: str, tmp_path: Path
) -> None:
    host = Host(tmp_path, version)
    host.has(**{OLD: A})
    answers = host.apply(asked(Method.INDEX), TWO=theirs)
    assert f'"{NEW}": already exists' in answers["name-0"].stderr
    assert host.names == {OLD: A, NEW: theirs}


@pytest.mark.parametrize(("version", "method"), EVERY)
def test_a_name_that_somebody_else_gives_while_a_script_is_cut_off_stays(
    version: str, method: Method, tmp_path: Path
) -> None:
    verb = "tag" if version >= "1.3" else "import"
    host = Host(tmp_path, version)
    host.has(**{OLD: A})
    host.apply(asked(method), CUT=verb, CUT_AT="after", OTHER=f"{NEW} {B} -")
    assert host.names == {OLD: A, NEW: B}


@pytest.mark.parametrize("version", ["1.2.6", "2.1.9"])
@pytest.mark.parametrize("state", [{"STATUS": "incomplete (1\\/2)"}, {"UNPACKED": "false"}])
def test_a_name_of_an_image_that_is_not_whole_or_not_unpacked_is_rolled_back(
    version: str, state: dict[str, str], tmp_path: Path
) -> None:
    host = Host(tmp_path, version)
    host.has(**{OLD: A})
    answers = host.apply(asked(Method.BLOBS), **state)
    assert answers["name-0"].ok and numbers(answers["kept"]) == frozenset()
    assert host.names == {OLD: A}
    foreign = replace(asked(Method.BLOBS), complete=False)
    assert numbers(host.apply(foreign, **state)["kept"]) == {0}


@pytest.mark.parametrize("cut", [{}, {"CUT": "check", "CUT_AT": "after"}, {"CUT": "import", "CUT_AT": "after"}])
@pytest.mark.parametrize("version", ["1.2.6", "2.1.9"])
def test_cris_record_is_removed_with_the_name_that_it_came_with(
    version: str, cut: dict[str, str], tmp_path: Path
) -> None:
    host = Host(tmp_path, version, cri=True)
    host.has()
    host.apply(asked(Method.BLOBS), STATUS="incomplete (1\\/2)", **cut)
    assert host.names == {}


@pytest.mark.parametrize("others", [{OLD: A}, {CONFIG: OLDER}, {CONFIG: A}], ids=["named", "other target", "before"])
def test_cris_record_stays_where_a_name_needs_it_or_it_was_there_before(others: dict[str, str], tmp_path: Path) -> None:
    host = Host(tmp_path, "1.6.20", cri=True)
    host.has(**others)
    host.apply(asked(Method.BLOBS), STATUS="incomplete (1\\/2)")
    assert NEW not in host.names and CONFIG in host.names


def test_each_name_of_a_script_is_judged_alone(tmp_path: Path) -> None:
    host = Host(tmp_path, "1.6.20")
    host.has(**{OLD: A})
    second = replace(asked(Method.TAG), name=Reference.parse("new.example/other:1"), source="gone.example/app:1")
    third = replace(asked(Method.TAG), name=Reference.parse("new.example/third:1"))
    answers = host.apply(asked(Method.TAG), second, third)
    assert numbers(answers["kept"]) == {0, 2}
    assert host.names == {OLD: A, NEW: A, "new.example/third:1": A}


def test_a_names_dots_and_brackets_stand_for_themselves(tmp_path: Path) -> None:
    host = Host(tmp_path, "1.6.20")
    host.has(**{OLD: A, "newXexample/aXb/app:2": A})
    host.apply(asked(Method.TAG), CUT="tag", CUT_AT="before")
    assert "newXexample/aXb/app:2" in host.names
    assert CRI_MANAGED not in re.findall(r"\S+", "".join(host.names))


@contextlib.contextmanager
def other_run(host: Host) -> Iterator[None]:
    """Another run that has the lock."""
    folder = os.open(host.folder, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@pytest.mark.parametrize(("version", "lock"), [("1.1.8", True), ("1.2.6", True), ("1.6.20", False)])
def test_runs_take_turns_to_give_new_names_where_ctr_has_no_atomic_way(
    version: str, lock: bool, tmp_path: Path
) -> None:
    host = Host(tmp_path, version)
    host.has(**{OLD: A})
    with ThreadPoolExecutor(1) as pool:
        with other_run(host):
            answers = pool.submit(host.apply, asked(Method.INDEX))
            given = wait([answers], timeout=0.5 if lock else 60).done
            assert bool(given) is not lock
        assert numbers(answers.result()["kept"]) == {0}
    assert host.names == {OLD: A, NEW: A}


@pytest.mark.parametrize("why", ["no flock", "never free", "unreadable"])
def test_without_a_lock_a_run_waits_before_it_verifies(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "MOMENT", f'[ -n "$locked" ] || : >{tmp_path}/waited')
    monkeypatch.setattr(naming, "_LONGEST_WAIT", 0.1)
    host = Host(tmp_path, "1.2.6")
    host.has(**{OLD: A})
    host.apply(asked(Method.INDEX))
    assert not (tmp_path / "waited").exists()
    host.has(**{OLD: A})
    if why == "unreadable":
        host.place = replace(host.place, ctr=replace(host.place.ctr, address="/nosuch/x.sock"))
    with other_run(host) if why == "never free" else contextlib.nullcontext():
        answers = host.apply(asked(Method.INDEX), **({"PATH": without_flock(tmp_path)} if why == "no flock" else {}))
    assert (tmp_path / "waited").exists() and numbers(answers["kept"]) == {0}


def without_flock(folder: Path) -> str:
    """A folder with the programs that scripts use, but for flock."""
    (folder / "bin").mkdir()
    for name in ("sh", "grep", "sed", "cut", "mv", "tr", "cat", "sleep", "printf", "sort"):
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    return str(folder / "bin")


MANY = [replace(asked(Method.INDEX), name=Reference.parse(f"new.example/many:{n}")) for n in range(3)]


@pytest.mark.parametrize("cri", [False, True])
def test_many_names_of_one_import_stay_and_prove_right(cri: bool, tmp_path: Path) -> None:
    host = Host(tmp_path, "1.2.6", cri=cri)
    host.has(**{OLD: A})
    assert numbers(host.apply(*MANY)["kept"]) == {0, 1, 2}
    assert {name for name in host.names if name != CONFIG} == {OLD, *(str(each.name) for each in MANY)}


@pytest.mark.parametrize("when", ["between", "after"])
def test_many_names_of_one_import_go_where_the_script_is_cut_off(when: str, tmp_path: Path) -> None:
    host = Host(tmp_path, "1.2.6")
    host.has(**{OLD: A})
    host.apply(*MANY, CUT="import", CUT_AT=when)
    assert host.names == {OLD: A}


@pytest.mark.parametrize("theirs", [A, B], ids=["the same", "another"])
def test_a_name_that_somebody_else_has_stays_theirs_and_the_others_are_given(theirs: str, tmp_path: Path) -> None:
    host = Host(tmp_path, "1.2.6")
    taken = str(MANY[1].name)
    host.has(**{OLD: A, taken: theirs})
    answers = host.apply(*MANY)
    assert answers["name-1"].exit == TAKEN and numbers(answers["kept"]) == {0, 2}
    assert host.names[taken] == theirs and len(host.names) == 4


def test_a_name_without_all_of_its_blobs_is_rolled_back(tmp_path: Path) -> None:
    host = Host(tmp_path, "1.6.20")
    host.has(**{OLD: A})
    (tmp_path / "blobs").write_text(f"{A}\n{B}\n")
    whole, part = (replace(asked(Method.BLOBS), blobs=blobs) for blobs in ((A, B), (A, OLDER)))
    assert numbers(host.apply(part)["kept"]) == frozenset()
    assert host.names == {OLD: A}
    assert numbers(host.apply(whole)["kept"]) == {0}


def test_the_digest_of_a_name_to_be_removed_is_read_from_its_row_where_nobody_knew_it() -> None:
    text = roll_back._mark(Given(number=0, name=NEW, digest=None))
    rows = f"{NEW[:-1]}3 type {B} 1.0 B linux -\n{NEW} type {A} 1.0 B linux -"
    shown = ["sh", "-c", f"rows={shlex.quote(rows)}; began_0=1\n{text}\necho $taken $*"]
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout == f"{A} {NEW}\n"
