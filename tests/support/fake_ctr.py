"""A ctr for unit tests that logs its command lines, and examples of names to give."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from records import record

from ctr_ferry.ctr import naming
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.methods import ByArchive, ByIndex, ByLink, ByTag, Naming
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Answer

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
TARGET = Descriptor(OCI_MANIFEST, DIGEST, 1234)
INDEX = replace(TARGET, media_type=OCI_INDEX)
LAYER = Descriptor("layer", OTHER, 5)
WANTED, SOURCE = "new.example/a/app:2", "old.example/app:1"
NAME = Reference.parse(WANTED)
TAGGED = ByTag(name=NAME, source=SOURCE, target_digest=DIGEST)
NAMING = ByIndex(name=NAME, target=TARGET, replaces=True)
ARCHIVED = ByArchive(name=NAME, target=TARGET, source=SOURCE, source_digest="")
LINKED = ByLink(name=NAME, target=TARGET, source=SOURCE, source_digest="", links=(TARGET, LAYER))
OWNER = "ctr-ferry.20260101T000000Z-abcd"
STAGE = "ctr-ferry.invalid/ctr-ferry.20260101t000000z-abcd:0"

FAKE = """#!/bin/sh
# Logs each command line, each word with \\037 behind it. Keeps the bytes from stdin.
here=${0%/*}
line=$(for word in "$@"; do printf '%s\\037' "$word"; done)
printf '%s\\n' "$line" >> "$here/log"  # in one write: both ends of a pipe log at the same time
case " $* " in
  *" import "*) cat > "$here/stdin.$(grep -c images.import "$here/log")"; echo "unpacking";;
  *" export "*) printf 'the archive';;
  *" images ls -q "*",target.digest=="*) cat "$here/ours" 2>/dev/null;;
  *" images ls -q "*) cat "$here/taken" 2>/dev/null;;
  *" ingest "*) cat > "$here/ingested.$(grep -c content.ingest "$here/log")";;
esac
for failing in ${FAIL-}; do case " $* " in *" $failing "*) echo "$failing fails" >&2; exit 1;; esac; done
"""


class Fake:
    """A folder with a ctr that logs its command lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ctr"
        self.path.write_text(FAKE)
        self.path.chmod(0o755)

    def ctr(self, version: str) -> Ctr:
        parsed = Version.parse(record(version, "--version").stdout)
        assert parsed
        return Ctr((str(self.path),), f"{self.folder}/x.sock", Capabilities.of_version(parsed))

    def place(self, version: str, *, from_namespace: str = "k8s.io", cri_managed: bool = False,
              content_root: str = "/root") -> Place:  # fmt: skip
        return Place(
            self.ctr(version),
            namespace="k8s.io",
            from_namespace=from_namespace,
            content_root=content_root,
            owner=OWNER,
            cri_managed=cri_managed,
        )

    def apply(self, place: Place, *namings: Naming, fail: str = "") -> dict[str, Answer]:
        """Run the script that gives names, with its clean-up; return the answers."""
        script = naming.script(place, namings)
        done = self.run(script.render("MARK"), fail)
        return script.read("MARK", done.stdout.encode(), done.stderr.encode())

    def run(self, text: str, fail: str = "") -> subprocess.CompletedProcess[str]:
        env = {"FAIL": fail, "PATH": "/usr/bin:/bin", "TMPDIR": str(self.folder)}
        return subprocess.run(["/bin/sh", "-c", text], env=env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)  # fmt: skip

    @property
    def calls(self) -> list[list[str]]:
        """All command lines of ctr, without `--address`."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split("\037")[2:-1] for line in lines]

    def archive(self, call: int) -> dict[str, object]:
        """Return the index.json of the archive that import number `call` read from stdin."""
        data = (self.folder / f"stdin.{call}").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            index: dict[str, object] = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
            return index

    @property
    def given(self) -> list[str]:
        """Every name that ctr was told to give, by tag or by an index-only archive, in order."""
        names, imports = [], 0
        for call in self.calls:
            if "tag" in call:
                names.append(call[-1])
            elif "import" in call:
                imports += 1
                if (self.folder / f"stdin.{imports}").read_bytes() != b"the archive":
                    (entry,) = self.archive(imports)["manifests"]  # type: ignore[misc]
                    names.append(entry["annotations"]["io.containerd.image.name"])
        return names

    def calls_of(self, verb: str) -> list[list[str]]:
        """Return the command lines of one verb, without the namespace."""
        return [call[2:] for call in self.calls if verb in call[2:4]]


@pytest.fixture(name="fake")
def fake_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(naming, "MOMENT", ":")
    return Fake(tmp_path)


def local(version: str) -> list[str]:
    return ["--local"] if version.startswith(("1.7", "2.")) else []


def annotations(index: dict[str, object]) -> tuple[str, str]:
    (entry,) = index["manifests"]  # type: ignore[misc]
    assert (entry["digest"], entry["size"], entry["mediaType"]) == (DIGEST, 1234, OCI_MANIFEST)
    names = entry["annotations"]
    return names["io.containerd.image.name"], names["org.opencontainers.image.ref.name"]
