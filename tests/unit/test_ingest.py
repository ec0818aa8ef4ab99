"""What a content store has is read right, and one blob is taken in by the way that suits the ctr."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from copies import CTR, NEEDED, PLACE, blob, digest

from ctr_ferry.ctr import ingest
from ctr_ferry.ctr.ingest import Store
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import Descriptor

NOW = datetime(2026, 11, 24, tzinfo=UTC)
OLD, YOUNG = "ctr-ferry.20261121T000000Z-copy-12ab.1f.1", "ctr-ferry.20261123T000000Z-copy-12ab.1f.1"


class TestStore:
    def test_what_each_namespace_has_and_what_expired_runs_have_left_are_kept_apart(self) -> None:
        def labels(owner: str) -> str:
            return f"containerd.io/gc.root={owner},containerd.io/gc.ref.content.{owner}.0=sha256:00"

        text = "\n".join(
            [
                "namespace default",
                digest(9),
                f"{digest(8)} 1MB 2 days {labels(OLD)}",
                "namespace k8s.io",
                digest(4),
                f"{digest(1)}  491B   2 minutes  a=b,{labels(OLD)}",
                f"{digest(2)} 1.049 MB 3 hours {labels(YOUNG)}",
                f"{digest(3)} 1B 3 hours containerd.io/gc.root=2024-01-01T00:00:00Z,x={OLD}",
            ]
        )
        active = f"REF SIZE AGE\n{OLD}-0f-0 1MB 2 days\n{YOUNG}-0f-0 1MB 1 day\ntheirs 1B 9 days\nctr-ferry.x 1B 9 days"
        store = ingest.parse_store(text, active, "k8s.io", NOW)
        assert store.here == {digest(1), digest(2), digest(3), digest(4)}
        assert store.elsewhere == {digest(8), digest(9)}
        assert store.labels == {digest(1): ("containerd.io/gc.root", f"containerd.io/gc.ref.content.{OLD}.0")}
        assert store.ingests == (f"{OLD}-0f-0",)

    def test_only_what_is_nowhere_goes_over_the_wire_and_documents_never(self) -> None:
        store = Store(here=frozenset({digest(4)}), elsewhere=frozenset({digest(9)}))
        assert ingest.to_send([NEEDED, NEEDED], store) == [blob(6)]

    def test_the_question_reduces_thousands_of_rows_to_digests(self, tmp_path: Any) -> None:
        rows = [
            f"{digest(4)}\t1MB\t2 days\tcontainerd.io/distribution.source.x=y",
            f"{digest(1)}\t1B\t1 s\ta.ctr-ferry.z=1",
            "namespace moby containerd.io/gc.root=x",  # behind a line break in a label
            f"name {digest(6)} a.ctr-ferry.z=1",
        ]
        fake = tmp_path / "ctr"
        fake.write_text(
            '#!/bin/sh\ncase "$*" in *namespaces*) echo k8s.io;; *) printf "DIGEST\\tSIZE\\n%s\\n" "$ROWS";; esac\n'
        )
        fake.chmod(0o755)
        step = ingest.questions(Settings(), "k8s.io", [])["store"]
        sh = f"ready() {{ :; }}; ctr={fake}; address=/s\n{step}"
        detail = subprocess.run(
            ["sh", "-c", sh],
            env={"ROWS": "\n".join(rows), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert detail.stdout.splitlines() == ["namespace k8s.io", digest(4), rows[1]]


class TestIntake:
    def test_up_to_1_6_the_daemon_knows_what_to_expect(self) -> None:
        intake = ingest.intake(PLACE, blob(6), 3)
        assert f"--expected-digest {digest(6)} --expected-size 60" in intake.step
        assert intake.step.endswith("-3") and intake.head == intake.tail == b""

    def test_from_1_7_on_it_is_the_only_blob_of_an_archive_without_images(self) -> None:
        modern = replace(CTR, capabilities=Capabilities.of_version(cast(Version, Version.parse("1.7.24"))))
        data = b"x" * 1000
        layer = Descriptor("layer", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        intake = ingest.intake(replace(PLACE, ctr=modern), layer, 0)
        with tarfile.open(fileobj=io.BytesIO(intake.head + data + intake.tail)) as archive:
            assert archive.getnames() == ["oci-layout", f"blobs/{layer.digest.replace(':', '/')}", "index.json"]
            assert archive.extractfile(archive.getmembers()[1]).read() == data  # type: ignore[union-attr]
            assert json.load(archive.extractfile("index.json"))["manifests"] == []  # type: ignore[arg-type]

    @pytest.mark.parametrize("there", [True, False])
    def test_what_counts_is_whether_the_blob_is_there_afterwards(self, tmp_path: Any, there: bool) -> None:
        modern = replace(CTR, capabilities=Capabilities.of_version(cast(Version, Version.parse("2.1.0"))))
        fake = tmp_path / "ctr"
        shown = f"echo {digest(6)}" if there else ":"
        fake.write_text(
            f'#!/bin/sh\ncase "$*" in *import*) cat >/dev/null; echo no image >&2; exit 1;; *) {shown};; esac\n'
        )
        fake.chmod(0o755)
        step = ingest.intake(replace(PLACE, ctr=replace(modern, argv=(str(fake),))), blob(6), 0).step
        done = subprocess.run(["sh", "-c", step], input=b"data", capture_output=True, check=False)
        assert (done.returncode == 0, done.stderr) == (there, b"" if there else b"no image\n")

    def test_a_transfer_has_as_much_time_as_its_size_needs(self) -> None:
        assert ingest.time_for(0, 60) == 60
        assert ingest.time_for(64 << 30, 60) > 86400
