"""Blobs of another namespace are linked, protected from collections meanwhile, and nothing else stays behind."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fake_ctr import (
    DIGEST,
    INDEX,
    LAYER,
    LINKED,
    OTHER,
    OWNER,
    TARGET,
    Fake,
    fake_fixture,  # noqa: F401
)

from ctr_ferry.ctr import gc_root, naming
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.gc_root import Root
from ctr_ferry.ctr.place import Place
from ctr_ferry.oci.descriptor import Descriptor

REST = {DIGEST: (OTHER, "sha256:" + "ef" * 32), OTHER: ("sha256:" + "01" * 32,), "sha256:" + "ef" * 32: ()}


def test_labels_keep_what_import_would_drop_of_a_linked_partial_index(fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, links=(INDEX, LAYER), rest=REST)
    assert fake.apply(fake.place("1.6.20", from_namespace="default"), asked)["name-0"].ok
    kept = [call[2:] for call in fake.calls_of("label") if ".rest." in call[3] and call[3][-1] != "="]
    key = kept[0][1].rpartition(".0=")[0]
    assert re.fullmatch(r"containerd\.io/gc\.ref\.content\.rest\.[0-9a-f]{8}", key)
    assert kept == [
        [DIGEST, f"{key}.0={OTHER}", f"{key}.1=sha256:{'ef' * 32}"],
        [OTHER, f"{key}.0=sha256:{'01' * 32}"],
    ]
    verbs = [call[3] for call in fake.calls]
    assert verbs.index("import") < len(verbs) - 1 - verbs[::-1].index("label")


def test_labels_that_keep_the_rest_go_where_the_name_is_not_verified(fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, links=(INDEX, LAYER), rest=REST)
    place = fake.place("1.6.20", from_namespace="default")
    for kept in ("kept_0=1", ""):
        fake.run(f"{kept}\n{asked.let_rest_go(place, 0)}")
        off = {key.rpartition(".")[2] for _, key in labels(fake.calls, put=False) if ".rest." in key}
        assert off == (set() if kept else {"0", "1"})
    assert asked.let_rest_go(place, 0) in naming.script(place, [asked]).cleanup


@pytest.mark.parametrize("fail", ["import", "ingest"])
def test_a_failed_naming_or_linking_labels_nothing(fail: str, fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, links=(INDEX, LAYER), rest=REST)
    fake.apply(fake.place("1.6.20", from_namespace="default"), asked, fail=fail)
    assert not [key for _, key in labels(fake.calls, put=True) if ".rest." in key]


def test_a_rest_that_cannot_be_labelled_is_a_failure(fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, links=(INDEX, LAYER), rest=REST)
    place = fake.place("1.6.20", from_namespace="default")
    step, *_ = (naming.script(place, [asked]).steps["name-0"],)
    assert fake.run(f"linked=0; {step}", fail="label").returncode != 0


def labels(calls: list[list[str]], *, put: bool) -> set[tuple[str, str]]:
    """Blob and key of every label that was put on, or taken off."""
    pairs = [(call[4], word) for call in calls if call[2:4] == ["content", "label"] for word in call[5:]]
    return {(digest, word.partition("=")[0]) for digest, word in pairs if word.endswith("=") is not put}


def link(fake: Fake, version: str, *blobs: Descriptor, **place: object) -> tuple[str, str]:
    return replace(LINKED, links=blobs).before(fake.place(version, **place), 0)  # type: ignore[arg-type]


PLACE = Place(cast(Ctr, None), "k8s.io", "default", "/root", OWNER, cri_managed=False)
ROOT = Root(PLACE, (TARGET, LAYER), 0)


def test_blobs_are_linked_from_an_empty_file_and_a_gc_root_refers_to_them_before(fake: Fake) -> None:
    step, cleanup = link(fake, "1.2.6", TARGET, LAYER)
    done = fake.run(step)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    size = str(len(ROOT.data))
    ingest = ["content", "ingest", "--expected-digest"]
    refs = [f"containerd.io/gc.ref.content.{OWNER}.{n}={held}" for n, held in enumerate((DIGEST, OTHER))]
    assert [call[2:] for call in fake.calls] == [
        [*ingest, ROOT.digest, "--expected-size", size, f"{OWNER}-root-0"],
        ["content", "label", ROOT.digest, f"containerd.io/gc.root={OWNER}", *refs],
        [*ingest, DIGEST, "--expected-size", "1234", f"{OWNER}-" + "ab" * 6],
        [*ingest, OTHER, "--expected-size", "5", f"{OWNER}-" + "cd" * 6],
    ]
    assert {file.read_bytes() for file in fake.folder.glob("ingested.*")} == {ROOT.data, b""}
    fake.run(cleanup)
    assert fake.calls[-1][-3:] == ["content", "rm", ROOT.digest]


@pytest.mark.parametrize("cut", [True, False])
def test_an_ingest_is_finished_where_linking_was_cut_off_and_only_there(fake: Fake, tmp_path: Path, cut: bool) -> None:
    (tmp_path / "tmp").mkdir()
    begun = f"{OWNER}-{'ab' * 6}"
    (fake.folder / "active").write_text(f"REF SIZE AGE\n{begun} 1B 1 second\n{OWNER}x-other 1B 1 second\n")
    listing = """*" content active "*) cat "$here/active"; : >"$here/active";;\n  *" ingest "*)"""
    fake.path.write_text(fake.path.read_text().replace('*" ingest "*)', listing))
    step, cleanup = link(fake, "1.2.6", TARGET)
    done = fake.run(f"TMPDIR={tmp_path}/tmp; export TMPDIR\n{step}\n{cleanup}", fail="--expected-digest" if cut else "")
    assert done.stderr == ("--expected-digest fails\n" if cut else "")
    finished = [call[-1] for call in fake.calls if "ingest" in call and "--expected-digest" not in call]
    assert finished == ([begun] if cut else [])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_two_runs_that_link_the_same_blobs_have_no_gc_root_in_common() -> None:
    other = replace(ROOT, place=replace(PLACE, owner="ctr-ferry.20260101T000000Z-ffff"))
    assert other.digest != ROOT.digest
    elsewhere = replace(ROOT, place=replace(PLACE, namespace="x"))
    assert elsewhere.digest != ROOT.digest != replace(ROOT, number=1).digest


def test_the_empty_file_that_links_is_gone_afterwards(fake: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    step, _ = link(fake, "1.2.6", TARGET)
    fake.run(f"TMPDIR={folder}; export TMPDIR; {step}")
    assert list(folder.iterdir()) == []
    assert len(fake.calls) == 3


def test_a_gc_root_that_was_collected_before_its_label_is_made_again(fake: Fake) -> None:
    text = fake.path.read_text().replace(
        "for failing in",
        """case " $* " in *" label "*) [ "$(grep -c label "$here/log")" -gt 2 ] || exit 1;; esac\nfor failing in""",
    )
    fake.path.write_text(text)
    step, _ = link(fake, "1.2.6", TARGET, LAYER)
    assert fake.run(step).returncode == 0
    assert [call[3] for call in fake.calls] == ["ingest", "label"] * 3 + ["ingest"] * 2


def test_linking_gives_up_if_no_label_can_be_set(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_root, "_TRIES", 3)
    step, _ = link(fake, "1.2.6", TARGET, LAYER)
    assert fake.run(step, fail="label").returncode != 0
    assert [call[3] for call in fake.calls] == ["ingest", "label"] * 3


def test_ctr_1_0_reads_the_blobs_own_file(fake: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "content root" / "blobs" / "sha256"
    folder.mkdir(parents=True)
    (folder / ("ab" * 32)).write_bytes(b"blob")
    step, _ = link(fake, "1.0.3", TARGET, content_root=str(tmp_path / "content root"))
    assert fake.run(step).returncode == 0
    assert {file.read_bytes() for file in fake.folder.glob("ingested.*")} >= {b"blob"}


def test_linking_stops_at_the_first_blob_that_fails(fake: Fake) -> None:
    step, _ = link(fake, "1.2.6", TARGET, LAYER)
    assert fake.run(step, fail="ingest").returncode == 1
    assert len(fake.calls) == 1
