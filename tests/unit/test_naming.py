"""Each method gives a name with the commands that the version of ctr knows, and never replaces somebody else's name."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from fake_ctr import (
    ARCHIVED,
    DIGEST,
    INDEX,
    LINKED,
    NAMING,
    SOURCE,
    STAGE,
    TAGGED,
    WANTED,
    Fake,
    annotations,
    fake_fixture,  # noqa: F401
    local,
)
from records import VERSIONS, record

from ctr_ferry.ctr import naming, roll_back
from ctr_ferry.ctr.commands import PINNED
from ctr_ferry.ctr.methods import TAKEN, Naming
from ctr_ferry.oci.descriptor import OCI_MANIFEST
from ctr_ferry.oci.reference import Reference


@pytest.mark.parametrize("version", VERSIONS)
def test_an_index_only_archive_is_fed_to_import_as_each_version_wants_it(version: str, fake: Fake) -> None:
    assert fake.run(NAMING.by_index(fake.place(version), 0)).returncode == 0
    full = "new.example/a/app:2"
    flags, names = {
        "1.0": (["--oci-name", "new.example/a/app"], (full, "2")),
        "1.1": (["--oci-name", "new.example/a/app"], (full, "2")),
        "1.2": ([], (full, full)),
        "1.7": (["--local", "--no-unpack"], (full, full)),
        "2.1": (["--local", "--no-unpack"], (full, full)),
        "2.2": (["--local", "--no-unpack"], (full, full)),
        "2.3": (["--local", "--no-unpack"], (full, full)),
    }.get(version[:3], (["--no-unpack"], (full, full)))
    assert fake.calls == [["--namespace", "k8s.io", "images", "import", *flags, "-"]]
    assert annotations(fake.archive(1)) == names


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asked", [replace(NAMING, replaces=False), ARCHIVED], ids=["index", "archive"])
def test_a_name_that_somebody_else_gave_meanwhile_is_not_replaced(version: str, asked: Naming, fake: Fake) -> None:
    (fake.folder / "taken").write_text(f"{WANTED}\n")
    assert fake.apply(fake.place(version), asked)["name-0"].exit == TAKEN
    look = ["--namespace", "k8s.io", "images", "ls", "-q", f'name=="{WANTED}"']
    assert look in fake.calls and WANTED not in fake.given
    assert not any(WANTED in call for call in fake.calls_of("rm"))
    (fake.folder / "taken").unlink()
    (fake.folder / "log").unlink()
    assert fake.apply(fake.place(version), asked)["name-0"].exit == 0
    assert look in fake.calls
    tagged = fake.place(version).ctr.capabilities.tag
    assert fake.given == ([STAGE, WANTED] if tagged else [WANTED])
    assert fake.calls_of("tag") == ([["images", "tag", *local(version), STAGE, WANTED]] if tagged else [])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flag_given_is_in_that_versions_help(version: str, fake: Fake) -> None:
    everything = replace(ARCHIVED, replaces=True, target=INDEX, whole=True, foreign=True)
    place = replace(fake.place(version), ctr=replace(fake.ctr(version), snapshotter="native"))
    fake.run(everything.by_index(place, 0))
    fake.run(everything.stream(place, 0).text)
    if place.ctr.capabilities.tag:
        fake.run(place.ctr.tag("k8s.io", "a:1", "b:1"))
    flagged = [call for call in fake.calls if call[3] in ("import", "tag")]
    for call in flagged:
        helped = record(version, f"help of images {call[3]}").stdout
        flags = [word for word in call[4:] if word.startswith("--")]
        assert (flags or call[3] == "tag") and all(re.search(rf"{flag}\b", helped) for flag in flags)


WHOLE: dict[str, object] = {"target": INDEX, "whole": True}


@pytest.mark.parametrize(
    ("crosses", "wanted", "flags"),
    [
        (False, {}, ["--no-unpack"]),
        (True, {}, []),
        (False, WHOLE, ["--all-platforms", "--no-unpack"]),
        (True, WHOLE, ["--all-platforms"]),
        (False, {"target": INDEX}, ["--no-unpack"]),
        (True, {"target": INDEX}, []),
        (False, {"whole": True}, ["--no-unpack"]),
        (False, {"foreign": True}, ["--all-platforms", "--no-unpack"]),
        (True, {"foreign": True}, ["--all-platforms", "--no-unpack"]),
    ],
)
def test_platforms_are_kept_and_unpacked_as_wanted_where_there_are_flags(
    crosses: bool, wanted: dict[str, object], flags: list[str], fake: Fake
) -> None:
    for version in ("1.6.20", "1.2.6"):
        place = fake.place(version, from_namespace="default" if crosses else "k8s.io")
        fake.run(replace(NAMING, **wanted).by_index(place, 0))  # type: ignore[arg-type]
    new, old = fake.calls
    assert new[4:-1] == flags
    assert old[4:-1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("from_namespace", ["k8s.io", "default"])
def test_the_classic_way_keeps_all_platforms_of_a_whole_index(version: str, from_namespace: str, fake: Fake) -> None:
    has_flag = fake.ctr(version).capabilities.no_unpack
    for wanted in (WHOLE, {"target": INDEX}, {"whole": True}):
        (fake.folder / "log").unlink(missing_ok=True)
        asked = replace(ARCHIVED, **wanted)  # type: ignore[arg-type]
        fake.apply(fake.place(version, from_namespace=from_namespace), asked)
        calls = fake.calls_of("export") + fake.calls_of("import")
        assert len(calls) == 3
        every = [[word for word in call if word.startswith("--all-platforms")] for call in calls]
        # A flag of export without "=true" swaps what follows it, from 1.3 to 1.6.
        all_of_it = [["--all-platforms=true"], ["--all-platforms"], ["--all-platforms"]]
        assert every == (all_of_it if has_flag and wanted is WHOLE else [[], [], []])


@pytest.mark.parametrize(
    ("version", "export", "imported"),
    [
        ("1.1.8", ["--oci-ref-name", "2"], ["--oci-name", "new.example/a/app"]),
        ("1.2.6", ["--oci-ref-name", "new.example/a/app:2"], []),
        ("1.6.20", [], []),
        ("2.1.9", ["--local=true"], ["--local"]),
    ],
)
def test_the_classic_way_exports_imports_and_then_gives_the_exact_name(
    version: str, export: list[str], imported: list[str], fake: Fake
) -> None:
    done = fake.run(ARCHIVED.stream(fake.place(version, from_namespace="default"), 0).text)
    assert (done.returncode, done.stderr) == (0, "")
    exports = [call[3:] for call in fake.calls if "export" in call]
    imports = [call[3:] for call in fake.calls if "import" in call]
    assert exports == [["export", *export, "-", SOURCE]]
    assert imports[0] == ["import", *imported, "-"]
    assert len(imports) == 2
    assert [call[1] for call in fake.calls if "export" in call] == ["default"]
    assert {call[1] for call in fake.calls if "import" in call} == {"k8s.io"}
    assert b"the archive" in {file.read_bytes() for file in fake.folder.glob("stdin.*")}


@pytest.mark.parametrize("version", ["1.2.6", "1.6.20"])
@pytest.mark.parametrize("failing", ["export", "import"])
def test_the_classic_way_fails_where_either_half_does_and_then_names_nothing(
    version: str, failing: str, fake: Fake
) -> None:
    done = fake.run(ARCHIVED.stream(fake.place(version), 0).text, fail=failing)
    assert done.returncode not in (0, TAKEN)
    assert f"{failing} fails" in done.stderr
    assert sum("import" in call for call in fake.calls) == 1


@pytest.mark.parametrize("fail", ["", "import", "export"])
def test_the_classic_way_removes_the_sources_own_name_where_it_was_not(fail: str, fake: Fake) -> None:
    place, removal = fake.place("1.6.20", from_namespace="default"), ["images", "rm", SOURCE]
    fake.apply(place, replace(ARCHIVED, source_stays=True), fail=fail)
    assert removal not in fake.calls_of("rm")
    gone = replace(ARCHIVED, source_stays=False, source_digest=DIGEST)
    fake.apply(place, gone, fail=fail)
    assert removal not in fake.calls_of("rm"), "it is another image by now"
    (fake.folder / "ours").write_text(f"{SOURCE}\n")
    answers = fake.apply(place, gone, fail=fail)
    assert answers["name-0"].ok is not bool(fail)
    assert fake.calls_of("rm")[-1] == removal
    assert fake.calls[-2][2:] == ["images", "ls", "-q", f'name=="{SOURCE}",target.digest=="{DIGEST}"']
    assert fake.calls[-1] == ["--namespace", "k8s.io", *removal]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("replaces", [False, True])
def test_the_classic_way_never_runs_where_import_would_replace_another_image(
    version: str, replaces: bool, fake: Fake
) -> None:
    asked = replace(ARCHIVED, may_stream=False, replaces=replaces)
    answer = fake.apply(fake.place(version, from_namespace="default"), asked)["name-0"]
    assert answer.exit not in (0, TAKEN)
    assert f"{SOURCE} is another image in k8s.io" in answer.stderr
    assert fake.calls_of("export") == fake.calls_of("import") == fake.calls_of("tag") == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asked", [LINKED, ARCHIVED], ids=["link", "archive"])
def test_replacing_goes_through_a_temporary_name_that_is_gone_afterwards(
    version: str, asked: Naming, fake: Fake
) -> None:
    place = fake.place(version, from_namespace="default")
    assert fake.apply(place, replace(asked, replaces=True))["name-0"].ok
    assert fake.given == [STAGE, WANTED]
    assert fake.calls_of("rm") == [["images", "rm", STAGE]]
    assert str(Reference.parse(STAGE)) == STAGE
    assert fake.calls_of("tag") == [], "tag --force deletes the name first"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("asked", "fail"),
    [(LINKED, "import"), (LINKED, "ingest export"), (ARCHIVED, "export"), (ARCHIVED, "import")],
)
def test_what_a_name_was_is_not_lost_where_replacing_fails(version: str, asked: Naming, fail: str, fake: Fake) -> None:
    place = fake.place(version, from_namespace="default")
    assert not fake.apply(place, replace(asked, replaces=True), fail=fail)["name-0"].ok
    assert WANTED not in fake.given
    assert fake.calls_of("rm") == [["images", "rm", STAGE]]


def test_each_naming_of_a_run_has_a_name_of_its_own_to_go_through(fake: Fake) -> None:
    asked = replace(ARCHIVED, replaces=True)
    fake.apply(fake.place("1.6.20"), asked, replace(asked, name=Reference.parse("new.example/b:1")))
    assert fake.given == [STAGE, WANTED, STAGE[:-1] + "1", "new.example/b:1"]
    assert fake.calls_of("rm") == [["images", "rm", STAGE, STAGE[:-1] + "1"]]


def test_replacing_within_a_namespace_needs_no_other_name(fake: Fake) -> None:
    fake.apply(fake.place("1.6.20"), NAMING)
    assert fake.given == [WANTED]
    assert fake.calls_of("rm") == []


def test_a_tag_is_never_forced(fake: Fake) -> None:
    fake.apply(fake.place("1.6.20"), TAGGED)
    assert fake.calls_of("tag") == [["images", "tag", SOURCE, WANTED]]
    assert fake.calls_of("rm") == []


def test_a_script_links_and_names_each_image_and_lists_all_names_once(fake: Fake) -> None:
    second = replace(NAMING, name=Reference.parse("new.example/b:1"))
    script = naming.script(fake.place("1.6.20", from_namespace="default"), [LINKED, second, second])
    assert list(script.steps) == ["was", "link-0", "name-0", "name-1", "name-2", "verify", "kept"]
    assert script.steps["verify"].count("new.example/b:1") == 1 and WANTED in script.steps["verify"]


def test_where_linking_fails_content_is_streamed(fake: Fake) -> None:
    answers = fake.apply(fake.place("1.6.20", from_namespace="default"), LINKED, fail="ingest")
    assert not answers["link-0"].ok and answers["name-0"].ok
    assert len(fake.calls_of("export")) == 1 and fake.given == [STAGE, WANTED]


def row(labels: str) -> str:
    return f"new.example/a/app:2 {OCI_MANIFEST} {DIGEST} 3.0 MiB linux/amd64 {labels}"


def listing(fake: Fake, *answers: str) -> None:
    """Lets ctr answer one table after the other, the last one for ever."""
    for number, answer in enumerate(answers, 1):
        (fake.folder / f"answer.{number}").write_text(f"REF TYPE DIGEST SIZE PLATFORMS LABELS\n{answer}\n")
    fake.path.write_text(
        f"""#!/bin/sh
cd {shlex.quote(str(fake.folder))}; echo >> log; n=$(wc -l < log | tr -d ' ')
while [ ! -e answer.$n ]; do n=$((n-1)); done; cat answer.$n
"""
    )


def test_names_are_listed_once_where_nobody_labels_them(fake: Fake) -> None:
    listing(fake, row("-"))
    done = fake.run(naming.verify(fake.place("1.2.6", cri_managed=False), [WANTED]))
    assert row("-") in done.stdout and len(fake.calls) == 1


def test_verifying_waits_for_cris_label(fake: Fake) -> None:
    listing(fake, row("-"), row("-"), row("io.cri-containerd.image=managed"))
    done = fake.run(naming.verify(fake.place("1.2.6", cri_managed=True), [WANTED]))
    assert done.stdout.count(" sha256:") == done.stdout.count("managed") == 1
    assert len(fake.calls) == 3


def test_verifying_waits_for_nothing_where_no_name_is_there(fake: Fake) -> None:
    listing(fake, "")
    done = fake.run(naming.verify(fake.place("1.2.6", cri_managed=True), [WANTED]))
    assert done.returncode == 0 and len(fake.calls) == 1


def test_verifying_gives_up_waiting_in_the_end(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_back, "_PATIENCE", 2)
    listing(fake, row("-"))
    done = fake.run(naming.verify(fake.place("1.2.6", cri_managed=True), [WANTED]))
    assert row("-") in done.stdout and len(fake.calls) == 3


@pytest.mark.parametrize(("left", "again"), [("x=b,team=a", False), ("team=a", True), ("-", True)])
def test_a_moved_name_gets_back_the_labels_of_others_that_are_gone(left: str, again: bool, fake: Fake) -> None:
    (fake.folder / "table").write_text(f"REF TYPE DIGEST SIZE PLATFORMS LABELS\n{row(left)}\n")
    fake.path.write_text(f"""{fake.path.read_text()}case " $* " in *" images ls "*) cat "${{0%/*}}/table";; esac\n""")
    fake.apply(fake.place("1.7.24"), replace(NAMING, labels=("team=a", "x=b")))
    assert fake.calls_of("label") == [["images", "label", WANTED, "team=a", "x=b"]] * again


def test_a_pin_that_the_listing_does_not_show_is_no_proof(fake: Fake) -> None:
    pinned = replace(NAMING, pin=True)
    listing(fake, row("team=a"))
    assert fake.apply(fake.place("1.7.24"), pinned)["kept"].text == ""
    listing(fake, row(f"team=a,{PINNED}"))
    assert fake.apply(fake.place("1.7.24"), pinned)["kept"].text == "0\n"


OTHERS = [replace(NAMING, name=Reference.parse(f"new.example/a/app:{n}"), replaces=False) for n in range(3)]


def test_up_to_1_2_one_import_gives_many_names(fake: Fake) -> None:
    script = naming.script(fake.place("1.2.6"), OTHERS)
    answers = fake.apply(fake.place("1.2.6"), *OTHERS)
    assert [name for name in script.steps if name.startswith(("many", "name"))] == [
        "many-0",
        "name-0",
        "name-1",
        "name-2",
    ]
    assert all(answers[f"name-{n}"].ok for n in range(3))
    assert len(fake.calls_of("import")) == 1
    listed = fake.archive(1)["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in listed] == [  # type: ignore[attr-defined]
        str(naming.name) for naming in OTHERS
    ]


@pytest.mark.parametrize("version", ["1.2.6", "1.1.8"])
def test_names_are_given_one_by_one_where_somebody_else_has_one_of_them(version: str, fake: Fake) -> None:
    (fake.folder / "taken").write_text(f"{WANTED}\n")
    answers = fake.apply(fake.place(version), *OTHERS)
    assert {answers[f"name-{n}"].exit for n in range(3)} == {TAKEN}
    assert fake.calls_of("import") == []


def test_names_are_given_one_by_one_where_one_import_fails(fake: Fake) -> None:
    fake.apply(fake.place("1.2.6"), *OTHERS, fail="import")
    assert len(fake.calls_of("import")) == 1 + len(OTHERS)


def test_up_to_1_1_one_import_gives_names_of_one_repository(fake: Fake) -> None:
    other = replace(OTHERS[0], name=Reference.parse("new.example/b:1"))
    script = naming.script(fake.place("1.1.8"), [*OTHERS, other])
    assert [name for name in script.steps if name.startswith("many")] == ["many-0"]
    fake.apply(fake.place("1.1.8"), *OTHERS, other)
    assert [call[2:4] for call in fake.calls_of("import")] == [
        ["--oci-name", "new.example/a/app"],
        ["--oci-name", "new.example/b"],
    ]


@pytest.mark.parametrize("asked", [NAMING, LINKED, ARCHIVED], ids=["moved", "link", "archive"])
def test_what_one_import_could_not_undo_is_given_by_itself(asked: Naming, fake: Fake) -> None:
    place = fake.place("1.2.6", from_namespace="default" if asked is LINKED else "k8s.io")
    assert not [name for name in naming.script(place, [asked, asked]).steps if name.startswith("many")]
    newer = fake.place("1.6.20")
    assert not [name for name in naming.script(newer, OTHERS).steps if name.startswith("many")], "tag protects each"
