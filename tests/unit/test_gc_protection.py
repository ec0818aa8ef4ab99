"""Blobs are protected from garbage collection before they are there, and nothing stays behind afterwards."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from copies import CTR, NEEDED, PLACE, digest

from ctr_ferry.ctr import gc_protection, gc_root
from ctr_ferry.ctr.gc_root import Root
from ctr_ferry.ctr.ingest import ImageBlobs, Store

EXPIRED = "ctr-ferry.20261121T000000Z-copy-12ab.1f.1-0f-0"  # an ingest of a run that has expired


class Protection:
    """A protection that runs against a ctr which writes down its arguments."""

    def __init__(self, folder: Path, active: str = "") -> None:
        self.folder, fake = folder, folder / "ctr"
        (folder / "active").write_text(active)
        fake.write_text(
            f"""#!/bin/sh
here={folder}
echo "$*" | sed 's/.*--namespace k8s.io //' >>$here/log
case "$*" in
*active*) cat $here/active;;
*ingest*)
  [ ! -e $here/isolated ] || [ -n "$(head -c 1)" ] || exit 1
  cat >/dev/null; for key; do :; done; sed -i "/^$key/d" $here/active;;
*label*=ctr-ferry*) [ ! -e $here/unlabelled ] || {{ echo "ctr: no label" >&2; exit 1; }};;
esac
"""
        )
        fake.chmod(0o755)
        self.place = replace(PLACE, ctr=replace(CTR, argv=(str(fake),)))

    def run(self, detail: bytes, *images: ImageBlobs, store: Store = Store()) -> tuple[dict[str, bool], list[str]]:  # noqa: B008
        """Returns which images are protected, and the arguments of ctr after the end of stdin."""
        script = gc_protection.protect(self.place, images or (NEEDED,), store)
        script = replace(script, steps={**script.steps, "wait": "echo waits >>" + f"{self.folder}/log; read -r named"})
        done = subprocess.run(["sh", "-c", script.render("M")], input=detail, capture_output=True, check=False)
        answers = script.read("M", done.stdout, done.stderr)
        log = (self.folder / "log").read_text().splitlines()
        return {n: a.ok for n, a in answers.items() if n != "wait"}, log[log.index("waits") + 1 :]


ROOT = Root(PLACE, NEEDED.blobs, 0)


class TestProtect:
    def test_makes_a_root_of_the_runs_own_for_all_blobs_before_they_are_taken_in(self) -> None:
        prepare = gc_protection.protect(PLACE, [NEEDED], Store()).steps["prepare-0"]
        label = prepare.index(f"content label {ROOT.digest} containerd.io/gc.root={PLACE.owner} ")
        assert (
            prepare.index(f"--expected-digest {ROOT.digest}") < label < prepare.index(f"--expected-digest {digest(1)}")
        )
        assert all(f".{n}={digest(number)}" in prepare[label:] for n, number in enumerate((1, 2, 4, 6)))
        assert prepare.count("content label") == 1  # nobody else's blob gets one
        assert prepare.count("content ingest") == 1 + 2  # the documents; what is to be sent comes later

    def test_links_what_another_namespace_has(self) -> None:
        prepare = gc_protection.protect(PLACE, [NEEDED], Store(elsewhere=frozenset({digest(4), digest(6)}))).steps[
            "prepare-0"
        ]
        assert prepare.count("<&5") == 2

    def test_takes_documents_in_that_it_cannot_link_and_prints_the_other_blobs(self, tmp_path: Path) -> None:
        protection = Protection(tmp_path)
        store = Store(elsewhere=frozenset(map(digest, (1, 2, 4, 6))))
        script = gc_protection.protect(protection.place, [NEEDED], store)
        (tmp_path / "isolated").touch()
        done = subprocess.run(["sh", "-c", script.render("M")], input=b"", capture_output=True, check=False)
        prepared = script.read("M", done.stdout, done.stderr)["prepare-0"]
        assert prepared.ok and prepared.text.split() == [digest(4), digest(6)]

    def test_makes_a_root_for_each_image(self) -> None:
        steps = gc_protection.protect(PLACE, [NEEDED, NEEDED], Store()).steps
        assert ROOT.digest in steps["prepare-0"] and ROOT.digest not in steps["prepare-1"]

    def test_removes_its_root_when_all_is_named_and_touches_nobody_elses(self, tmp_path: Path) -> None:
        theirs = f"{PLACE.owner[:-1]}x-0f-0 1MB 1 day\n"
        prepared, calls = Protection(tmp_path, theirs).run(gc_protection.ALL_NAMED)
        assert prepared == {"prepare-0": True}
        assert calls == ["content active", f"content rm {ROOT.digest}", "content active"]
        assert (tmp_path / "active").read_text() == theirs

    def test_takes_its_labels_off_when_it_breaks_off_and_finishes_the_runs_own_ingests(self, tmp_path: Path) -> None:
        mine, other = f"{PLACE.owner}-0f-0", "ctr-ferry.20261124T000000Z-copy-ffff.1f.1-0f-0"
        protection = Protection(tmp_path, f"REF SIZE\n{mine} 1MB\n{other} 1MB\n")
        _, calls = protection.run(b"")
        off = [f"containerd.io/gc.ref.content.{PLACE.owner}.{n}=" for n in range(4)]
        assert calls[1] == " ".join(["content label", ROOT.digest, "containerd.io/gc.root=", *off])
        assert [line for line in calls if "ingest" in line] == [f"content ingest {mine}"]
        assert other in (tmp_path / "active").read_text()

    def test_finishes_what_a_first_attempt_left_though_the_second_went_well(self, tmp_path: Path) -> None:
        mine = f"{PLACE.owner}-0f-0"
        _, calls = Protection(tmp_path, f"{mine} 0B\n").run(gc_protection.ALL_NAMED)
        assert f"content ingest {mine}" in calls

    def test_removes_what_expired_runs_have_left(self, tmp_path: Path) -> None:
        old = "containerd.io/gc.ref.content.ctr-ferry.old.0"
        store = Store(labels={digest(1): ("containerd.io/gc.root", old)}, ingests=(EXPIRED,))
        _, calls = Protection(tmp_path).run(gc_protection.ALL_NAMED, store=store)
        assert f"content label {digest(1)} containerd.io/gc.root= {old}=" in calls
        assert f"content ingest {EXPIRED}" in calls

    def test_fails_where_the_root_takes_no_label_and_takes_nothing_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gc_root, "_TRIES", 2)
        protection = Protection(tmp_path)
        (tmp_path / "unlabelled").touch()
        prepared, _ = protection.run(b"")
        assert prepared == {"prepare-0": False}
        assert digest(1) not in "".join(w for w in (tmp_path / "log").read_text().splitlines() if "ingest" in w)
