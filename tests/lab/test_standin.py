"""node1's ctr answers as ctr 1.2.6 answered: records of the real one, replayed.

tests/data/ctr-1.2.6.jsonl holds what ctr 1.2.6 said, word for word, one record a line, in the order in which
they were made. Added to each: `scenario` (its namespace; records of one namespace build on each other),
`prepare` (what was there before), `skip` (why it cannot be replayed) and `real_only` (why the stand-in
differs). A record with an empty argv describes the file that the export before it wrote. Records of pushes and
pulls, and of daemons of other versions, are left out.

With CTR_FERRY_LEGACY node1's ctr is a real one, and the same records are replayed on it.
"""

import gzip
import hashlib
import io
import json
import os
import random
import re
import shlex
import tarfile
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from lab.standin.archives import NotCovered, Pipe, _pass_archive, oci_ref_name, old_index

DATA = Path(__file__).parent.parent / "data"
RECORDS: list[dict[str, Any]] = [json.loads(line) for line in (DATA / "ctr-1.2.6.jsonl").read_text().splitlines()]
ROLES: dict[str, str] = json.loads((DATA / "ctr-1.2.6-digests.json").read_text())
REAL = "CTR_FERRY_LEGACY" in os.environ
A, R = "io.containerd.image.name", "org.opencontainers.image.ref.name"
NAME = "localhost:5101/facts/"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Blobs = dict[str, bytes]


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type: str, data: bytes, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


class Images:
    """The images and archives that the records were made with, rebuilt: other bytes, the same shape.

    Blobs are known by roles, such as `a.1` for layer 1 of image a. Where ctr goes by the order of digests, the
    rebuilt ones are in the order of the recorded ones.
    """

    def __init__(self) -> None:
        self.random = random.Random()  # new bytes each time: nothing of an earlier run is in the store

    def layers(self, count: int) -> list[bytes]:
        return sorted((self._layer() for _ in range(count)), key=digest)

    def _layer(self) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            data = self.random.randbytes((1 << 20) + 64)
            info = tarfile.TarInfo(self.random.randbytes(4).hex())
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        return gzip.compress(raw.getvalue(), 1, mtime=0)

    def image(self, role: str, layers: list[bytes], architecture: str = "amd64") -> Blobs:
        """A manifest, its config (338 bytes with three layers, as recorded) and its layers."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(gzip.decompress(layer)) for layer in layers]},
            "author": self.random.randbytes(2).hex(),
        }
        config_blob = json.dumps(config, separators=(", ", ": ")).encode()
        config_blob += b" " * (338 - len(config_blob))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config_blob),
            "layers": [descriptor(LAYER, layer) for layer in layers],
        }
        blobs = {f"{role}.{number}": layer for number, layer in enumerate(layers)}
        return {**blobs, f"{role}.c": config_blob, f"{role}.m": json.dumps(manifest).encode()}

    @cached_property
    def a(self) -> Blobs:
        """Layer 1 has the smallest digest of all."""
        smallest, middle, greatest = self.layers(3)
        while True:
            image = self.image("a", [greatest, smallest, middle])
            if min(map(digest, image.values())) == digest(smallest):
                return image

    @cached_property
    def multi(self) -> Blobs:
        """Before the first blob that only arm64 has (its manifest aside) come that manifest and a layer."""
        first, second, third, fourth = self.layers(4)
        while True:
            amd = self.image("m.amd", [fourth, first])
            arm = self.image("m.arm", [second, third], "arm64")
            platforms = [{"os": "linux", "architecture": architecture} for architecture in ("amd64", "arm64")]
            children = [
                descriptor(MANIFEST, blob, platform=platform)
                for blob, platform in zip((amd["m.amd.m"], arm["m.arm.m"]), platforms, strict=True)
            ]
            index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
            blobs = {**amd, **arm, "m.i": index}
            order = sorted(blobs, key=lambda role: digest(blobs[role]))
            if set(order[:2]) == {"m.arm.m", "m.amd.1"} and order[2] == "m.arm.0":
                return blobs

    @cached_property
    def blobs(self) -> Blobs:
        """All blobs by role."""
        shared = self.layers(3)
        later = self.image("d1", [*shared, *self.layers(1)])
        one = {"x": 1, "y": 1}
        singles = {role: self.layers(1)[0] for role in one}
        sizes = {"g": 200_000, "r1": 100_000, "r2": 100_000}
        return {
            **self.a,
            **self.multi,
            **self.image("b", self.layers(2)),
            **self.image("by", self.layers(3)),
            **self.image("u", self.layers(1)),
            **self.image("d0", [*shared, *self.layers(1)]),
            **later,
            **singles,
            **{role: self.random.randbytes(size) for role, size in sizes.items()},
        }

    @cached_property
    def roles(self) -> dict[str, str]:
        """Roles by digest."""
        return {digest(blob): role for role, blob in reversed(self.blobs.items())}

    def of(self, *images: str) -> Blobs:
        return {role: blob for role, blob in self.blobs.items() if role.rpartition(".")[0] in images}

    def entry(self, role: str, name: str = "", ref: str = "") -> dict[str, Any]:
        """A line of index.json: the blob with the annotations A and R."""
        notes = {key: value for key, value in ((A, name), (R, ref)) if value}
        more = {"annotations": notes} if notes else {}
        return descriptor(INDEX if role == "m.i" else MANIFEST, self.blobs[role], **more)

    def archive(self, name: str) -> bytes:
        """One of the archives by its recorded name."""
        of, entry, full = self.of, self.entry, self.full
        multi, arm = of("m", "m.amd", "m.arm"), of("m.arm")
        arm_manifest = {"m.arm.m": self.blobs["m.arm.m"]}
        swapped = {"a.0": b"not what its digest says" + bytes(1000)}
        delta = {role: blob for role, blob in of("d1").items() if role in ("d1.3", "d1.c", "d1.m")}
        archives = {
            "arm.tar": lambda: full("arm:1", "m.arm.m", arm),
            "badblob.tar": lambda: full("bad:1", "a.m", {**of("a"), **swapped}),
            "bb-a.tar": lambda: full("byblob:1", "a.m", {}),
            "bb-by.tar": lambda: full("byblob:1", "by.m", {}),
            "cn-and-tag.tar": lambda: self.tar([entry("a.m", NAME + "a:1", "1")], of("a")),
            "cn-only.tar": lambda: self.tar([entry("a.m", NAME + "a:1")], of("a")),
            "conflict.tar": lambda: self.tar([entry("a.m", NAME + "fromcn:1", NAME + "fromref:1")], of("a")),
            "cut.tar": lambda: full("a:1", "a.m", of("a"))[: -(1 << 20) - 600_000],
            "d0.tar": lambda: full("d:0", "d0.m", of("d0")),
            "delta.tar": lambda: full("d:1", "d1.m", delta),
            "empty.tar": lambda: b"",
            "full.tar": lambda: full("a:1", "a.m", of("a")),
            "full.tar.gz": lambda: gzip.compress(full("a:1", "a.m", of("a")), 1),
            "fullref.tar": lambda: self.tar([entry("a.m", "", NAME + "a:1")], of("a")),
            "garbage.tar": lambda: self.random.randbytes(100_000),
            "last.tar": lambda: full("a:1", "a.m", of("a"), last=True),
            "manifest-only.tar": lambda: full("monly:1", "a.m", {"a.m": self.blobs["a.m"]}),
            "mini-abs.tar": lambda: full("retag:2", "b.m", {}),
            "mini.tar": lambda: full("retag:2", "a.m", {}),
            "mini2.tar": lambda: full("retag:3", "a.m", {}),
            "mr.tar": lambda: full("m:retag", "m.i", {}),
            "multi.tar": lambda: full("m:1", "m.i", multi),
            "noann.tar": lambda: self.tar([entry("a.m")], of("a")),
            "nolayout.tar": lambda: full("a:1", "a.m", of("a"), layout=False),
            "noplat.tar": lambda: full("a:1", "a.m", of("a")),
            "other.tar": lambda: full("a:1", "b.m", of("b")),
            "part.tar": lambda: full("mp:1", "m.i", of("m", "m.amd")),
            "part2.tar": lambda: full("mp2:1", "m.i", {**of("m", "m.amd"), **arm_manifest}),
            "setup-a-1.tar": lambda: full("a:1", "a.m", of("a")),
            "tagref.tar": lambda: self.tar([entry("a.m", "", "1")], of("a")),
            "text.tar": lambda: b"no archive at all\n" * 100,
            "two.tar": lambda: self.tar(
                [entry("a.m", NAME + "a:1", NAME + "a:1"), entry("b.m", NAME + "b:1", NAME + "b:1")], of("a", "b")
            ),
            "twoname.tar": lambda: self.tar(
                [entry("a.m", NAME + f"a:{tag}", NAME + f"a:{tag}") for tag in "12"], of("a")
            ),
            "twotag.tar": lambda: self.tar([entry("a.m", "", "t1"), entry("b.m", "", "t2")], of("a", "b")),
            "ub.tar": lambda: full("bad:u", "u.m", {**of("u"), "u.0": self.layers(1)[0]}),
        }
        return archives[name]()

    def full(self, name: str, role: str, blobs: Blobs, *, last: bool = False, layout: bool = True) -> bytes:
        """An archive with one full name in both annotations."""
        return self.tar([self.entry(role, NAME + name, NAME + name)], blobs, last=last, layout=layout)

    def tar(self, entries: list[dict[str, Any]], blobs: Blobs, *, last: bool = False, layout: bool = True) -> bytes:
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        head = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'} if layout else {}
        head["index.json"] = index
        body = {
            "blobs/sha256/" + digest(self.blobs[role]).removeprefix("sha256:"): blob for role, blob in blobs.items()
        }
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, data in (body | head if last else head | body).items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return raw.getvalue()


class Answer:
    """Exit status, stdout and stderr, recorded or heard."""

    def __init__(self, status: int | None, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


def expected_role(record: dict[str, Any]) -> str:
    """The blob that a record ingests, where its bytes are not in the record."""
    return next((ROLES[word] for word in record["argv"] if word in ROLES), "")


def scenes_of(record: dict[str, Any]) -> set[str]:
    """The scenarios that a record builds on: its own; where namespaces are listed, that of the namespace, too."""
    together = {"no-namespace", "facts-one"}
    return together if record["scenario"] in together else {record["scenario"]}


class Replay:
    """The records on one node: each after those of its scenario that come before it."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.images = Images()
        self.prefix = f"replay-r{uuid.uuid4().hex[:8]}-"  # 1.2 wants a letter behind each dash
        self.folder = f"/tmp/{self.prefix}files"
        self.answers: dict[int, Answer] = {}
        self.placed: set[str] = set()
        self.namespaces: set[str] = set()
        node.exec(["mkdir", "-p", self.folder])

    def answer(self, number: int) -> Answer:
        """What the node says to a record, after the earlier ones of its scenario."""
        scenes = scenes_of(RECORDS[number])
        for earlier in range(number + 1):
            other = RECORDS[earlier]
            if other["scenario"] in scenes and "skip" not in other and earlier not in self.answers:
                self.answers[earlier] = self._replay(other)
                if "label" in other["argv"] and self.answers[earlier].status != other["exit"]:
                    self._replay(RECORDS[earlier - 1])  # another's collection came between: ingest again
                    self.answers[earlier] = self._replay(other)
        return self.answers[number]

    def _replay(self, record: dict[str, Any]) -> Answer:
        for step in record.get("prepare", []):
            self._prepare(step, record["scenario"])
        if not record["argv"]:
            return self._file_written()
        argv = [self._ours(word) for word in record["argv"]]
        if "--expected-size" in argv and (role := expected_role(record)):
            argv[argv.index("--expected-size") + 1] = str(len(self.images.blobs[role]))
        if "export" in argv and "longer x.tar" not in record.get("prepare", []):
            self._shell("rm -f x.tar")
        if "-n" in argv:
            argv[argv.index("-n") + 1] = self._namespace(record["scenario"])
        for word in record["argv"]:
            if word.endswith((".tar", ".tar.gz")) and word not in ("x.tar", "rt.tar", "nosuch.tar", "nosuchdir/x.tar"):
                self._place(word)
        done = self._shell(f"{self._stdin(record)} {shlex.join(argv)}")
        out = done.stdout
        text = of_tar(out) if record["stdout"].startswith("<") else out.decode()
        return Answer(done.returncode, text, done.stderr.decode())

    def _stdin(self, record: dict[str, Any]) -> str:
        """The shell's words for a record's stdin, in front of its command: a pipe, or a file where one was."""
        stdin = record["stdin"]
        role = expected_role(record)
        if match := re.fullmatch(r"<the bytes of (.*)>", stdin):
            self._place(match[1])
            return f"cat {match[1]} |"
        if stdin == "<an empty regular file>":
            self._write("empty", b"")
            return "< empty"
        if stdin.startswith("<"):
            self._write(role, self.images.blobs[role])
            return f"< {role}" if "blob file" in stdin else f"cat {role} |"
        return f"printf %s {shlex.quote(stdin)} |"

    def _prepare(self, step: str, scenario: str) -> None:
        """One step of what was there before; `elsewhere` means another namespace."""
        digests = {role: digest(blob) for role, blob in self.images.blobs.items()}
        words = shlex.split(re.sub(r"\{(.+?)\}", lambda match: digests[match[1]], step))
        namespace = self._namespace(scenario)
        if words[0] == "elsewhere":
            namespace = self._namespace("elsewhere")
            words = words[1:]
        if words[0] == "sleep":
            time.sleep(float(words[1]))
        elif words[0] == "as":
            self._write(words[1], self.images.archive(words[2]))
        elif words[0] == "longer":
            self._write(words[1], bytes(8 << 20))
        elif words[0] == "collect":
            self._collect()
        elif words[0] == "keep":
            role = self.images.roles[words[1]]
            self._write(role, self.images.blobs[role])
            ctr = f"ctr -n {namespace} content"
            ingest = f"{ctr} ingest --expected-digest {words[1]} keep-{role} < {role}"
            label = f"{ctr} label {words[1]} containerd.io/gc.root=replay"
            self._shell(" || ".join([f"{{ {ingest} && {label}; }}"] * 3), check=True)  # a collection may come between
        else:
            if "import" in words:
                self._place(words[-1])
            self._shell(shlex.join(["ctr", "-n", namespace, *words]), check=True)

    def _collect(self) -> None:
        """Make the daemon collect its garbage: take away an image of another namespace."""
        self._place("other.tar")
        ctr = f"ctr -n {self._namespace('collected')} images"
        self._shell(f"{ctr} import other.tar && {ctr} rm --sync {NAME}a:1", check=True)

    def _namespace(self, scenario: str) -> str:
        namespace = self.prefix + scenario
        self.namespaces.add(namespace)
        return namespace

    def _ours(self, word: str) -> str:
        """A word of a recorded command line, with the rebuilt digests."""
        for recorded, role in ROLES.items():
            word = word.replace(recorded, digest(self.images.blobs[role]))
        return word

    def _place(self, name: str) -> None:
        """An archive onto the node; bb.tar is placed by what comes before its record."""
        if name not in self.placed and name != "bb.tar" and not name.startswith("rt."):
            self._write(name, self.images.archive(name))
            self.placed.add(name)

    def _write(self, name: str, data: bytes) -> None:
        self.node.exec(["sh", "-c", f"cat > {self.folder}/{shlex.quote(name)}"], stdin=data)

    def _shell(self, script: str, check: bool = False) -> Any:
        return self.node.exec(["sh", "-c", f"cd {self.folder} && {script}"], check=check)

    def _file_written(self) -> Answer:
        done = self._shell("cat x.tar")
        return Answer(None, of_tar(done.stdout) if done.returncode == 0 else "no file", "")

    def clean(self) -> None:
        """Nothing of this on the node."""
        ctr = shlex.join(self.node.real_ctr_words)  # the stand-in takes many times longer
        lines = [
            f'for n in {" ".join(sorted(self.namespaces))}; do c() {{ {ctr} -n $n "$@"; }}',
            "  for kind in images leases; do c $kind rm $(c $kind ls -q); done",
            "  c content rm $(c content ls -q)",
            "done; sleep 2",
            f"for n in {' '.join(sorted(self.namespaces))}; do",
            "  for s in $(c snapshots ls | sed 1d | cut -d' ' -f1); do c snapshots rm $s; done",
            "  c namespaces rm $n",
            "done",
        ]
        self._shell("\n".join(lines))
        self.node.exec(["rm", "-rf", self.folder])


LAYER_SIZE = r"\b(10491\d\d|41956068)\b"
HEX = r"sha256:[0-9a-f]{64}"
AGE = r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes)"


def of_tar(data: bytes) -> str:
    """An archive as the records describe one: its size, its names, or what is wrong, and its JSON files."""
    names: object
    files: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = tar.getmembers()
            names = [member.name for member in members]
            for member in members:
                if member.name in ("index.json", "oci-layout", "manifest.json"):
                    content = tar.extractfile(member)
                    assert content
                    files[member.name] = content.read().decode()
    except tarfile.ReadError as error:
        names = repr(error)
    return json.dumps({"size": len(data), "names": names, "files": files})


def recorded_tar(record: dict[str, Any]) -> str:
    """What a record says of an archive, in the same form."""
    if record["stdout"] == "no file":
        return "no file"
    if match := re.fullmatch(r"<(\d+) bytes of binary: tar of (.*)>", record["stdout"]):
        listed = match[2].replace("'", '"')
        names = json.loads(listed) if listed.startswith("[") else match[2]
        return json.dumps({"size": int(match[1]), "names": names})
    kept = {"index.json": "index_json", "oci-layout": "oci_layout", "manifest.json": "manifest_json"}
    files = {name: record[key] for name, key in kept.items() if record.get(key)}
    return json.dumps({**json.loads(record["stdout"]), "files": files})


def comparable(text: str, roles: dict[str, str], prefix: str = "") -> str:
    """A text without what differs from run to run: digests, sizes of layers, dates, ages, temporary names."""
    text = text.replace(prefix, "") if prefix else text
    identities = {match: match for match in re.findall(HEX, text) if match in SAID_DIGESTS}
    for known in (roles, identities):
        for value, role in known.items():
            text = text.replace(value, f"<{role.replace('sha256:', 'digest ')}>")
            text = text.replace(value.replace(":", "/"), f"blobs of <{role.replace('sha256:', 'digest ')}>")
    replacements = [
        (HEX.replace(":", "[:/]"), "<digest>"),
        (LAYER_SIZE, "<size>"),
        (r"import-\d{4}-\d\d-\d\d", "import-<date>"),
        (r'time="[^"]*"', 'time="<time>"'),
        (r"\S+/tmpmounts/containerd-mount\d+", "<mount>"),
        (r"extract-\d+-\S+", "extract-<number>"),
        (r"\t" + AGE + r"\t+", "\t<age>\t"),
        (r"\tAGE\t+", "\tAGE\t"),
        (r"(?m)(?<=^  Revision: ).*$", "<revision>"),
    ]
    for pattern, replacement in replacements:
        text = re.sub(pattern, replacement, text)
    return text


SAID_DIGESTS = {
    word for record in RECORDS for word in re.findall(HEX, " ".join(record["argv"])) if word not in ROLES
} | {digest(b"other\n")}
"""Digests of which the bytes are in the records: they stay as they are."""


def listed(record: dict[str, Any], text: str) -> str:
    """Where an answer lists what others put there or the daemon may collect: what concerns the record.

    An archive's own index.json is kept as a blob to which nothing refers; when it goes is the daemon's business.
    """
    words = [word for word in record["argv"] if not word.startswith("-")]
    lines = text.splitlines(keepends=True)
    if "content" in words and ("ls" in words or "active" in words):
        lines = [re.sub(r"[^\t\n]+$", lambda cell: ",".join(sorted(cell[0].split(","))), line) for line in lines]
        lines = [line for line in lines if not line.startswith("<digest>")]
        return "".join([*lines[:1], *sorted(lines[1:])] if "active" in words else sorted(lines))
    if "label" in words:
        return "".join(",".join(sorted(line.split(","))) + "\n" for line in text.splitlines())
    if "namespaces" in words:
        return "".join(" ".join(line.split()) + "\n" for line in lines if re.match("NAME|facts-(one|none)", line))
    return text


@pytest.fixture(scope="module")
def replay(fleet: Any) -> Iterator[Replay]:
    if "node1" not in fleet.nodes:
        pytest.skip("the fleet has no node1")
    replay = Replay(fleet.nodes["node1"])
    yield replay
    replay.clean()


def readable(record: dict[str, Any]) -> str:
    """The id of a record's test."""
    return re.sub(r"[^\w.,-]+", "-", f"{record['scenario']}-{record['case']}").strip("-")[:100]


@pytest.mark.parametrize("number", range(len(RECORDS)), ids=[readable(record) for record in RECORDS])
def test_ctr_answers_as_1_2_6_did(replay: Replay, number: int) -> None:
    record = RECORDS[number]
    if "skip" in record:
        pytest.skip(record["skip"])
    if "real_only" in record and not REAL:
        pytest.skip(record["real_only"])
    answer = replay.answer(number)
    roles = replay.images.roles
    is_tar = not record["argv"] or record["stdout"].startswith("<")
    recorded = recorded_tar(record) if is_tar else record["stdout"]
    detail = answer.out
    if is_tar and detail.startswith("{"):
        detail = json.dumps({key: value for key, value in json.loads(detail).items() if key in json.loads(recorded)})
    assert shown(record, detail, roles, replay.prefix) == shown(record, recorded, ROLES)
    assert comparable(answer.err, roles, replay.prefix) == comparable(record["stderr"], ROLES)
    assert answer.status == record["exit"]


def shown(record: dict[str, Any], text: str, roles: dict[str, str], prefix: str = "") -> str:
    """A record's stdout in a form that two runs have in common."""
    text = listed(record, comparable(text, roles, prefix))
    if text.startswith('{"size"'):
        tar = json.loads(text)
        tar["names"] = sorted(tar["names"]) if isinstance(tar["names"], list) else tar["names"]
        text = json.dumps(tar)
    return text


standin_only = pytest.mark.skipif(REAL, reason="node1 has a real ctr")

NOT_COVERED = [
    ["content", "fetch", "localhost/x:1"],
    ["content", "ls", 'labels."containerd.io/gc.ref.content.0"'],
    ["events"],
    ["images", "export", "--manifest", "sha256:" + "0" * 64, "x.tar", "localhost/x:1"],
    ["images", "push", "noslash:1"],
    ["run", "--isolated", "localhost/x:1", "x"],
    ["-n", "two-2", "images", "ls"],
]


@standin_only
@pytest.mark.parametrize("args", NOT_COVERED, ids=" ".join)
def test_the_stand_in_refuses_loudly_what_it_does_not_cover(replay: Replay, args: list[str]) -> None:
    done = replay.node.exec(["ctr", *args], check=False)
    assert done.returncode == 70
    assert re.fullmatch(r"ctr stand-in: .+ is not covered\n", done.stderr.decode())
    assert done.stdout == b""


@standin_only
def test_a_refused_archive_leaves_nothing_behind(replay: Replay) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in (("config.json", b"{}"), ("manifest.json", b'[{"Config": "config.json"}]')):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    ctr = ["ctr", "-n", replay._namespace("refused")]
    done = replay.node.exec([*ctr, "images", "import", "-"], stdin=raw.getvalue(), check=False)
    assert (done.returncode, b"docker archive" in done.stderr) == (70, True)
    assert replay.node.exec([*ctr, "images", "ls", "-q"]).stdout == b""
    assert replay.node.exec([*ctr, "leases", "ls", "-q"]).stdout == b""


def test_an_archive_streams_in_bounded_memory_and_no_further_than_its_end() -> None:
    size = 64 << 20
    header = tarfile.TarInfo("blobs/sha256/x")
    header.size = size
    read_end, write_end = os.pipe()
    sink = os.open(os.devnull, os.O_WRONLY)
    pieces = [header.tobuf(), *[bytes(1 << 20)] * (size >> 20), bytes(1024)]

    def write() -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(write_end, view) :]

    writer = threading.Thread(target=write)
    writer.start()
    tracemalloc.start()
    _pass_archive(Pipe(read_end, sink), "", False)  # returns though the write end is still open
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.join()
    for fd in (read_end, write_end, sink):
        os.close(fd)
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("notes", "masked"),
    [
        ({A: "h/a:1", R: "h/a:1"}, False),
        ({R: "h/a:1"}, False),
        ({A: "h/a:1", R: "1"}, True),
        ({A: "h/a:1"}, True),
        (None, False),
    ],
)
def test_the_name_that_1_2_6_does_not_know_is_masked_only_where_it_matters(
    notes: dict[str, str] | None, masked: bool
) -> None:
    index = json.dumps({"manifests": [{"digest": "d", "annotations": notes}]}).encode()
    answer = old_index(index, "", False)
    assert (answer != index, len(answer)) == (masked, len(index))


def test_a_name_that_cannot_be_masked_is_refused() -> None:
    escaped = b'{"manifests": [{"annotations": {"io.containerd.image\\u002ename": "h/a:1"}}]}'
    with pytest.raises(NotCovered):
        old_index(escaped, "", False)


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("localhost:5000/a/b:1", "1"),
        ("localhost:5000/a/b", ""),
        ("h/a@sha256:0", "@"),
        ("h/a:1@sha256:0", "1@"),
        ("short:1", ""),
        ("sha256:0", ""),
    ],
)
def test_the_tag_of_an_export_is_taken_from_the_name(reference: str, tag: str) -> None:
    assert oci_ref_name(reference) == tag
