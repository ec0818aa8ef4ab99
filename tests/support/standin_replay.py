"""The records of ctr 1.2.6, replayed on a node."""

import re
import shlex
import time
import uuid
from typing import Any

from archives import digest
from standin_images import NAME, Images
from standin_records import RECORDS, ROLES, of_tar


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
