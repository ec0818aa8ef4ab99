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
from typing import cast

import pytest
from records import VERSIONS, record

from ctr_ferry.ctr import gc_root, naming, roll_back
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.gc_root import Root
from ctr_ferry.ctr.naming import TAKEN, Method, Naming, Place
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
NAMING = Naming(Method.INDEX, SOURCE, Reference.parse(WANTED), TARGET, replaces=True)
LINKED = replace(NAMING, method=Method.LINK, replaces=False, blobs=(TARGET, LAYER))
ARCHIVED = replace(NAMING, method=Method.ARCHIVE, replaces=False)
OWNER = "ctr-ferry.20260101T000000Z-abcd"
STAGE = "ctr-ferry.invalid/ctr-ferry.20260101t000000z-abcd:0"

FAKE = """#!/bin/sh
# Writes each command line down, one quoted word after the other; keeps what it gets on stdin.
here=${0%/*}
line=$(for word in "$@"; do printf '%s\\037' "$word"; done)
printf '%s\\n' "$line" >> "$here/log"  # in one go: the two ends of a pipe write at the same time
case " $* " in
  *" import "*) cat > "$here/stdin.$(grep -c import "$here/log")"; echo "unpacking";;
  *" export "*) printf 'the archive';;
  *" images ls -q "*",target.digest=="*) cat "$here/ours" 2>/dev/null;;
  *" images ls -q "*) cat "$here/taken" 2>/dev/null;;
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

    def act(self, place: Place, *namings: Naming, fail: str = "") -> dict[str, Answer]:
        """Runs a whole script, its clean-up included."""
        script = naming.script(place, namings)
        done = self.run(script.render("MARK"), fail)
        return script.read("MARK", done.stdout.encode(), done.stderr.encode())

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

    @property
    def given(self) -> list[str]:
        """Every name that ctr was told to give, by tag or by index-only archive, in order."""
        names, imports = [], 0
        for call in self.calls:
            imports += "import" in call
            if "tag" in call:
                names.append(call[-1])
            elif "import" in call and (self.folder / f"stdin.{imports}").read_bytes() != b"the archive":
                (entry,) = self.archive(imports)["manifests"]  # type: ignore[misc]
                names.append(entry["annotations"]["io.containerd.image.name"])
        return names

    def told(self, verb: str) -> list[list[str]]:
        """The calls of one verb, without the namespace."""
        return [call[2:] for call in self.calls if verb in call[2:4]]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(naming, "MOMENT", ":")
    return Fake(tmp_path)


def local(version: str) -> list[str]:
    return ["--local"] if version.startswith(("1.7", "2.")) else []


def annotations(index: dict[str, object]) -> tuple[str, str]:
    (entry,) = index["manifests"]  # type: ignore[misc]
    assert (entry["digest"], entry["size"], entry["mediaType"]) == (DIGEST, 1234, OCI_MANIFEST)
    names = entry["annotations"]
    return names["io.containerd.image.name"], names["org.opencontainers.image.ref.name"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_index_only_archive_is_fed_to_import_as_each_version_wants_it(version: str, fake: Fake) -> None:
    assert fake.run(naming.by_index(fake.place(version), NAMING)).returncode == 0
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
@pytest.mark.parametrize("method", [Method.INDEX, Method.ARCHIVE])
def test_a_name_that_somebody_else_gave_meanwhile_is_not_replaced(version: str, method: Method, fake: Fake) -> None:
    (fake.folder / "taken").write_text(f"{WANTED}\n")
    asked = replace(NAMING, method=method, replaces=False)
    assert fake.act(fake.place(version), asked)["name-0"].exit == TAKEN
    look = ["--namespace", "k8s.io", "images", "ls", "-q", f'name=="{WANTED}"']
    assert look in fake.calls and WANTED not in fake.given
    assert not any(WANTED in call for call in fake.told("rm"))
    (fake.folder / "taken").unlink()
    (fake.folder / "log").unlink()
    assert fake.act(fake.place(version), asked)["name-0"].exit == 0
    assert look in fake.calls
    tagged = fake.place(version).ctr.capabilities.tag
    assert fake.given == ([STAGE, WANTED] if tagged else [WANTED])
    assert fake.told("tag") == ([["images", "tag", *local(version), STAGE, WANTED]] if tagged else [])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flag_given_is_in_that_versions_help(version: str, fake: Fake) -> None:
    everything = replace(NAMING, target=INDEX, whole=True, foreign=True)
    place = replace(fake.place(version), ctr=replace(fake.ctr(version), snapshotter="native"))
    fake.run(naming.by_index(place, everything))
    fake.run(naming.by_archive(place, everything)[0])
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
        fake.run(naming.by_index(place, replace(NAMING, **wanted)))  # type: ignore[arg-type]
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
        fake.act(fake.place(version, from_namespace=from_namespace), asked)
        calls = fake.told("export") + fake.told("import")
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
    done = fake.run(naming.by_archive(fake.place(version, from_namespace="default"), ARCHIVED)[0])
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
    done = fake.run(naming.by_archive(fake.place(version), ARCHIVED)[0], fail=failing)
    assert done.returncode not in (0, TAKEN)
    assert f"{failing} fails" in done.stderr
    assert sum("import" in call for call in fake.calls) == 1


@pytest.mark.parametrize("fail", ["", "import", "export"])
def test_the_classic_way_takes_the_sources_own_name_out_again_where_it_was_not(fail: str, fake: Fake) -> None:
    place, removal = fake.place("1.6.20", from_namespace="default"), ["images", "rm", SOURCE]
    fake.act(place, replace(ARCHIVED, source_stays=True), fail=fail)
    assert removal not in fake.told("rm")
    gone = replace(ARCHIVED, source_stays=False, source_digest=DIGEST)
    fake.act(place, gone, fail=fail)
    assert removal not in fake.told("rm"), "it is another image by now"
    (fake.folder / "ours").write_text(f"{SOURCE}\n")
    answers = fake.act(place, gone, fail=fail)
    assert answers["name-0"].ok is not bool(fail)
    assert fake.told("rm")[-1] == removal
    assert fake.calls[-2][2:] == ["images", "ls", "-q", f'name=="{SOURCE}",target.digest=="{DIGEST}"']
    assert fake.calls[-1] == ["--namespace", "k8s.io", *removal]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("replaces", [False, True])
def test_the_classic_way_never_runs_where_import_would_replace_another_image(
    version: str, replaces: bool, fake: Fake
) -> None:
    asked = replace(ARCHIVED, may_stream=False, replaces=replaces)
    answer = fake.act(fake.place(version, from_namespace="default"), asked)["name-0"]
    assert answer.exit not in (0, TAKEN)
    assert f"{SOURCE} is another image in k8s.io" in answer.stderr
    assert fake.told("export") == fake.told("import") == fake.told("tag") == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asked", [LINKED, ARCHIVED], ids=["link", "archive"])
def test_replacing_goes_through_a_name_of_our_own_that_is_gone_afterwards(
    version: str, asked: Naming, fake: Fake
) -> None:
    place = fake.place(version, from_namespace="default")
    assert fake.act(place, replace(asked, replaces=True))["name-0"].ok
    assert fake.given == [STAGE, WANTED]
    assert fake.told("rm") == [["images", "rm", STAGE]]
    assert str(Reference.parse(STAGE)) == STAGE
    assert fake.told("tag") == [], "tag --force deletes the name first"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("asked", "fail"),
    [(LINKED, "import"), (LINKED, "ingest export"), (ARCHIVED, "export"), (ARCHIVED, "import")],
)
def test_what_a_name_was_is_not_lost_where_replacing_fails(version: str, asked: Naming, fail: str, fake: Fake) -> None:
    place = fake.place(version, from_namespace="default")
    assert not fake.act(place, replace(asked, replaces=True), fail=fail)["name-0"].ok
    assert WANTED not in fake.given
    assert fake.told("rm") == [["images", "rm", STAGE]]


def test_each_naming_of_a_run_has_a_name_of_its_own_to_go_through(fake: Fake) -> None:
    asked = replace(ARCHIVED, replaces=True)
    fake.act(fake.place("1.6.20"), asked, replace(asked, name=Reference.parse("new.example/b:1")))
    assert fake.given == [STAGE, WANTED, STAGE[:-1] + "1", "new.example/b:1"]
    assert fake.told("rm") == [["images", "rm", STAGE, STAGE[:-1] + "1"]]


def test_replacing_within_a_namespace_needs_no_other_name(fake: Fake) -> None:
    fake.act(fake.place("1.6.20"), NAMING)
    assert fake.given == [WANTED]
    assert fake.told("rm") == []


def test_a_tag_is_never_forced(fake: Fake) -> None:
    tagged = replace(NAMING, method=Method.TAG, replaces=False, target=None, digest=DIGEST)
    fake.act(fake.place("1.6.20"), tagged)
    assert fake.told("tag") == [["images", "tag", SOURCE, WANTED]]
    assert fake.told("rm") == []


def test_a_script_links_and_names_each_image_and_looks_at_all_names_once(fake: Fake) -> None:
    second = replace(NAMING, name=Reference.parse("new.example/b:1"))
    script = naming.script(fake.place("1.6.20", from_namespace="default"), [LINKED, second, second])
    assert list(script.steps) == ["was", "link-0", "name-0", "name-1", "name-2", "verify", "kept"]
    assert script.steps["verify"].count("new.example/b:1") == 1 and WANTED in script.steps["verify"]


def test_where_linking_fails_content_is_streamed(fake: Fake) -> None:
    answers = fake.act(fake.place("1.6.20", from_namespace="default"), LINKED, fail="ingest")
    assert not answers["link-0"].ok and answers["name-0"].ok
    assert len(fake.told("export")) == 1 and fake.given == [STAGE, WANTED]


REST = {DIGEST: (OTHER, "sha256:" + "ef" * 32), OTHER: ("sha256:" + "01" * 32,), "sha256:" + "ef" * 32: ()}


def test_what_import_would_let_go_of_a_linked_partial_index_is_kept_by_labels(fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, blobs=(INDEX, LAYER), rest=REST)
    assert fake.act(fake.place("1.6.20", from_namespace="default"), asked)["name-0"].ok
    kept = [call[2:] for call in fake.told("label") if ".rest." in call[3]]
    key = "containerd.io/gc.ref.content.rest"
    assert kept == [
        [DIGEST, f"{key}.0={OTHER}", f"{key}.1=sha256:{'ef' * 32}"],
        [OTHER, f"{key}.0=sha256:{'01' * 32}"],
    ]
    verbs = [call[3] for call in fake.calls]
    assert verbs.index("import") < len(verbs) - 1 - verbs[::-1].index("label")
    assert not [key for _, key in labels(fake.calls, put=False) if ".rest." in key], "these stay"


@pytest.mark.parametrize("fail", ["import", "ingest"])
def test_nothing_is_kept_where_naming_or_linking_fails(fail: str, fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, blobs=(INDEX, LAYER), rest=REST)
    fake.act(fake.place("1.6.20", from_namespace="default"), asked, fail=fail)
    assert not [key for _, key in labels(fake.calls, put=True) if ".rest." in key]


def test_a_rest_that_cannot_be_kept_is_a_failure(fake: Fake) -> None:
    asked = replace(LINKED, target=INDEX, blobs=(INDEX, LAYER), rest=REST)
    place = fake.place("1.6.20", from_namespace="default")
    step, *_ = (naming.script(place, [asked]).steps["name-0"],)
    assert fake.run(f"linked=0; {step}", fail="label").returncode != 0


def labels(calls: list[list[str]], *, put: bool) -> set[tuple[str, str]]:
    """Blob and key of every label that was put on, or taken off."""
    pairs = [(call[4], word) for call in calls if call[2:4] == ["content", "label"] for word in call[5:]]
    return {(digest, word.partition("=")[0]) for digest, word in pairs if word.endswith("=") is not put}


def link(fake: Fake, version: str, *blobs: Descriptor, **place: object) -> tuple[str, str]:
    return naming.link(fake.place(version, **place), replace(LINKED, blobs=blobs))  # type: ignore[arg-type]


ROOT = Root(cast(Ctr, None), "k8s.io", OWNER, (DIGEST, OTHER))


def test_blobs_are_linked_from_an_empty_file_and_held_by_a_root_before_they_are_there(fake: Fake) -> None:
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


def test_two_runs_that_link_the_same_have_no_root_in_common() -> None:
    other = replace(ROOT, owner="ctr-ferry.20260101T000000Z-ffff")
    assert other.digest != ROOT.digest
    assert replace(ROOT, namespace="x").digest != ROOT.digest != replace(ROOT, number=1).digest


def test_the_empty_file_that_links_is_gone_afterwards(fake: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    step, _ = link(fake, "1.2.6", TARGET)
    fake.run(f"TMPDIR={folder}; export TMPDIR; {step}")
    assert list(folder.iterdir()) == []
    assert len(fake.calls) == 3


def test_a_root_that_a_collection_took_before_its_label_is_planted_again(fake: Fake) -> None:
    text = fake.path.read_text().replace(
        "for failing in",
        """case " $* " in *" label "*) [ "$(grep -c label "$here/log")" -gt 2 ] || exit 1;; esac\nfor failing in""",
    )
    fake.path.write_text(text)
    step, _ = link(fake, "1.2.6", TARGET, LAYER)
    assert fake.run(step).returncode == 0
    assert [call[3] for call in fake.calls] == ["ingest", "label"] * 3 + ["ingest"] * 2


def test_linking_gives_up_where_no_label_is_taken_on(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
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
