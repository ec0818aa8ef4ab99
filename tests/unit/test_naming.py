"""How a name is given: the command text of each method, run against a ctr that writes down what it is told."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from records import VERSIONS, record

from tasks.ctr import naming
from tasks.ctr.commands import Ctr
from tasks.ctr.naming import Naming
from tasks.ctr.version import Capabilities, Version
from tasks.oci.descriptor import OCI_MANIFEST, Descriptor
from tasks.oci.reference import Reference

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
TARGET = Descriptor(OCI_MANIFEST, DIGEST, 1234)
NAMING = Naming("k8s.io", Reference.parse("new.example/a/app:2"), TARGET, may_replace=True)

FAKE = """#!/bin/sh
# Writes each command line down, one quoted word after the other; keeps what it gets on stdin.
here=${0%/*}
line=$(for word in "$@"; do printf '%s\\037' "$word"; done)
printf '%s\\n' "$line" >> "$here/log"  # in one go: the two ends of a pipe write at the same time
case " $* " in
  *" import "*) cat > "$here/stdin.$(grep -c import "$here/log")"; echo "unpacking";;
  *" export "*) printf 'the archive';;
  *" ls -q "*) cat "$here/taken" 2>/dev/null;;
  *" ingest "*) cat > "$here/ingested.$(grep -c ingest "$here/log")";;
esac
for failing in ${FAIL-}; do case " $* " in *" $failing "*) echo "$failing fails" >&2; exit 1;; esac; done
"""


class Fake:
    """A folder with a ctr that only writes down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ctr"
        self.path.write_text(FAKE)
        self.path.chmod(0o755)

    def ctr(self, version: str) -> Ctr:
        parsed = Version.parse(record(version, "--version").stdout)
        assert parsed
        return Ctr((str(self.path),), "/run/x.sock", Capabilities.of_version(parsed))

    def run(self, text: str, fail: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", "-c", text], env={"FAIL": fail, "PATH": "/usr/bin:/bin"},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # fmt: skip

    @property
    def calls(self) -> list[list[str]]:
        """What ctr was told, without the common start."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split("\037")[2:-1] for line in lines]

    def archive(self, call: int) -> dict[str, object]:
        """The index.json of what the call-th import got on stdin."""
        data = (self.folder / f"stdin.{call}").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            index: dict[str, object] = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
            return index


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def annotations(index: dict[str, object]) -> tuple[str, str]:
    (entry,) = index["manifests"]  # type: ignore[misc]
    assert (entry["digest"], entry["size"], entry["mediaType"]) == (DIGEST, 1234, OCI_MANIFEST)
    names = entry["annotations"]
    return names["io.containerd.image.name"], names["org.opencontainers.image.ref.name"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_index_only_archive_is_fed_to_import_as_each_version_wants_it(version: str, fake: Fake) -> None:
    assert fake.run(naming.by_index(fake.ctr(version), NAMING)).returncode == 0
    full = "new.example/a/app:2"
    flags, names = {
        "1.0": (["--oci-name", "new.example/a/app"], (full, "2")),
        "1.1": (["--oci-name", "new.example/a/app"], (full, "2")),
        "1.2": ([], (full, full)),
        "1.7": (["--local", "--no-unpack"], (full, full)),
        "2.1": (["--local", "--no-unpack"], (full, full)),
    }.get(version[:3], (["--no-unpack"], (full, full)))
    assert fake.calls == [["--namespace", "k8s.io", "images", "import", *flags, "-"]]
    assert annotations(fake.archive(1)) == names


@pytest.mark.parametrize("version", VERSIONS)
def test_a_name_that_somebody_else_gave_meanwhile_is_not_replaced(version: str, fake: Fake) -> None:
    step = naming.by_index(fake.ctr(version), replace(NAMING, may_replace=False))
    (fake.folder / "taken").write_text("new.example/a/app:2\n")
    done = fake.run(step)
    assert done.returncode == 1
    assert "already exists" in done.stderr
    look = ["--namespace", "k8s.io", "images", "ls", "-q", 'name=="new.example/a/app:2"']
    assert fake.calls == [look]
    (fake.folder / "taken").unlink()
    assert fake.run(step).returncode == 0
    assert [call[3] for call in fake.calls] == ["ls", "ls", "import"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flag_given_is_in_that_versions_help(version: str, fake: Fake) -> None:
    everything = replace(NAMING, all_platforms=True, foreign=True)
    ctr = replace(fake.ctr(version), snapshotter="native")
    fake.run(naming.by_index(ctr, everything))
    if ctr.capabilities.tag:
        fake.run(ctr.tag("k8s.io", "a:1", "b:1", force=True))
    for call in fake.calls:
        helped = record(version, f"help of images {call[3]}").stdout
        flags = [word for word in call[4:] if word.startswith("--")]
        assert flags and all(re.search(rf"{flag}\b", helped) for flag in flags)


@pytest.mark.parametrize(
    ("wanted", "flags"),
    [
        ({"unpack": True}, []),
        ({"unpack": True, "all_platforms": True}, ["--all-platforms"]),
        ({"all_platforms": True}, ["--all-platforms", "--no-unpack"]),
        ({"foreign": True}, ["--all-platforms", "--no-unpack"]),
        ({"foreign": True, "unpack": True}, ["--all-platforms", "--no-unpack"]),
        ({}, ["--no-unpack"]),
    ],
)
def test_platforms_are_kept_and_unpacked_as_wanted_where_there_are_flags(
    wanted: dict[str, bool], flags: list[str], fake: Fake
) -> None:
    fake.run(naming.by_index(fake.ctr("1.6.20"), replace(NAMING, **wanted)))  # type: ignore[arg-type]
    fake.run(naming.by_index(fake.ctr("1.2.6"), replace(NAMING, **wanted)))  # type: ignore[arg-type]
    new, old = fake.calls
    assert new[4:-1] == flags
    assert old[4:-1] == []


def by_archive(ctr: Ctr, *, source_is_there: bool = True) -> str:
    return naming.by_archive(ctr, "old.example/app:1", "default", NAMING, source_is_there=source_is_there)


@pytest.mark.parametrize(
    ("version", "export", "imported"),
    [
        ("1.1.8", ["--oci-ref-name", "2"], ["--oci-name", "new.example/a/app"]),
        ("1.2.6", ["--oci-ref-name", "new.example/a/app:2"], []),
        ("1.6.20", [], []),
        ("2.1.9", ["--local"], ["--local"]),
    ],
)
def test_the_classic_way_exports_imports_and_then_gives_the_exact_name(
    version: str, export: list[str], imported: list[str], fake: Fake
) -> None:
    done = fake.run(by_archive(fake.ctr(version)))
    assert (done.returncode, done.stderr) == (0, "")
    exports = [call[3:] for call in fake.calls if "export" in call]
    imports = [call[3:] for call in fake.calls if "import" in call]
    assert exports == [["export", *export, "-", "old.example/app:1"]]
    assert imports[0] == ["import", *imported, "-"]
    assert len(imports) == 2
    assert [call[1] for call in fake.calls if "export" in call] == ["default"]
    assert {call[1] for call in fake.calls if "import" in call} == {"k8s.io"}
    assert b"the archive" in {file.read_bytes() for file in fake.folder.glob("stdin.*")}


@pytest.mark.parametrize("failing", ["export", "import"])
def test_the_classic_way_fails_where_either_half_does_and_then_names_nothing(failing: str, fake: Fake) -> None:
    done = fake.run(by_archive(fake.ctr("1.2.6")), fail=failing)
    assert done.returncode != 0
    assert f"{failing} fails" in done.stderr
    assert sum("import" in call for call in fake.calls) == 1


def test_the_classic_way_takes_the_sources_own_name_out_again_where_it_was_not(fake: Fake) -> None:
    removal = ["--namespace", "k8s.io", "images", "rm", "old.example/app:1"]
    for fail in ("", "import"):
        done = fake.run(by_archive(fake.ctr("1.6.20"), source_is_there=False), fail=fail)
        assert bool(done.returncode) == bool(fail)
        assert fake.calls[-1] == removal
    fake.run(by_archive(fake.ctr("1.6.20"), source_is_there=True))
    assert fake.calls.count(removal) == 2


def labels(calls: list[list[str]], *, put: bool) -> set[tuple[str, str]]:
    """Blob and key of every label that was put on, or taken off."""
    pairs = [(call[4], word) for call in calls if call[2:4] == ["content", "label"] for word in call[5:]]
    return {(digest, word.partition("=")[0]) for digest, word in pairs if word.endswith("=") is not put}


def test_blobs_are_linked_from_an_empty_file_and_kept_from_the_first_on(fake: Fake) -> None:
    blobs = [TARGET, Descriptor("layer", OTHER, 5)]
    step, cleanup = naming.link(fake.ctr("1.2.6"), "/root", "k8s.io", blobs, "ctr-ferry.run", rooted=())
    done = fake.run(step)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ingest = ["content", "ingest", "--expected-digest"]
    assert [call[2:] for call in fake.calls if "ingest" in call] == [
        [*ingest, DIGEST, "--expected-size", "1234", "ctr-ferry.run-" + "ab" * 6],
        [*ingest, OTHER, "--expected-size", "5", "ctr-ferry.run-" + "cd" * 6],
    ]
    assert fake.calls[1][2:6] == ["content", "label", DIGEST, "containerd.io/gc.root=ctr-ferry.run"]
    assert {file.read_bytes() for file in fake.folder.glob("ingested.*")} == {b""}
    put = labels(fake.calls, put=True)
    fake.run(cleanup)
    assert labels(fake.calls, put=False) == put


def test_the_empty_file_that_links_is_gone_afterwards(fake: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    step, _ = naming.link(fake.ctr("1.2.6"), "/root", "k8s.io", [TARGET], "run", rooted=())
    fake.run(f"TMPDIR={folder}; export TMPDIR; {step}")
    assert list(folder.iterdir()) == []
    assert len(fake.calls) == 2


def test_a_blob_that_somebody_else_keeps_is_linked_but_its_label_left_alone(fake: Fake) -> None:
    step, cleanup = naming.link(fake.ctr("1.2.6"), "/root", "k8s.io", [TARGET], "run", rooted=[DIGEST])
    fake.run(step)
    fake.run(cleanup)
    assert "ingest" in fake.calls[0]
    assert "containerd.io/gc.root" not in {key for put in (True, False) for _, key in labels(fake.calls, put=put)}


def test_ctr_1_0_reads_the_blobs_own_file(fake: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "content root" / "blobs" / "sha256"
    folder.mkdir(parents=True)
    (folder / ("ab" * 32)).write_bytes(b"blob")
    step, _ = naming.link(fake.ctr("1.0.3"), str(tmp_path / "content root"), "k8s.io", [TARGET], "run", rooted=())
    assert fake.run(step).returncode == 0
    assert [file.read_bytes() for file in fake.folder.glob("ingested.*")] == [b"blob"]


def test_linking_stops_at_the_first_blob_that_fails(fake: Fake) -> None:
    blobs = [TARGET, Descriptor("layer", OTHER, 5)]
    step, _ = naming.link(fake.ctr("1.2.6"), "/root", "k8s.io", blobs, "run", rooted=())
    assert fake.run(step, fail="ingest").returncode == 1
    assert len(fake.calls) == 1


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
    done = fake.run(naming.verify(fake.ctr("1.2.6"), "k8s.io", ["new.example/a/app:2"], managed=False))
    assert row("-") in done.stdout and len(fake.calls) == 1


def test_verifying_waits_for_cris_label(fake: Fake) -> None:
    listing(fake, row("-"), row("-"), row("io.cri-containerd.image=managed"))
    done = fake.run(naming.verify(fake.ctr("1.2.6"), "k8s.io", ["new.example/a/app:2"], managed=True))
    assert done.stdout.count(" sha256:") == done.stdout.count("managed") == 1
    assert len(fake.calls) == 4


def test_verifying_waits_for_nothing_where_no_name_is_there(fake: Fake) -> None:
    listing(fake, "")
    done = fake.run(naming.verify(fake.ctr("1.2.6"), "k8s.io", ["new.example/a/app:2"], managed=True))
    assert done.returncode == 0 and len(fake.calls) == 2


def test_verifying_gives_up_waiting_in_the_end(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_PATIENCE", 2)
    listing(fake, row("-"))
    done = fake.run(naming.verify(fake.ctr("1.2.6"), "k8s.io", ["new.example/a/app:2"], managed=True))
    assert row("-") in done.stdout and len(fake.calls) == 4
