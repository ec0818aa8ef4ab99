"""The worst texts that hosts, registries, archives and files may send, and every parser that reads them.

`python -m hostile` gives each text to each parser, and prints one line of JSON for each parse that has ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from archives import read_whole

from ctr_ferry import shell
from ctr_ferry.ctr import checks, failures, free_space, ingest, leftovers, probe, usage
from ctr_ferry.ctr.listing import Listing, parse_digests
from ctr_ferry.ctr.progress import Progress
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import FerryError
from ctr_ferry.images import mappings
from ctr_ferry.inventory.ansible import Inventory
from ctr_ferry.inventory.ansible_cfg import defaults
from ctr_ferry.inventory.templates import Templates
from ctr_ferry.oci import tar
from ctr_ferry.oci.descriptor import Manifest
from ctr_ferry.oci.reference import Reference, parse_domain
from ctr_ferry.oci.registry import Challenge, Registry
from ctr_ferry.registry import credentials, curl, refusals
from ctr_ferry.report import past_runs, record
from ctr_ferry.shell import Answer, Script
from ctr_ferry.text import shown, shown_name, tail
from ctr_ferry.transfer import checksum

SIZE = 1 << 18
NOW = datetime.now(UTC)
CPU = 10  # CPU seconds for one parser and all texts. A linear parser takes about one, a quadratic one takes minutes.
DIGEST = f"sha256:{'a' * 64}"
BOUNDARY = "ferry-000102030405060708090a0b0c0d0e0f"
HEADER = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
HTTPS = Registry("r.example")
# These texts have SIZE bytes. The others have a quarter of it.
WHOLE = {"blanks", "line breaks", "quotes", "lists", "digits", "one line", "NULs", "no UTF-8"}
WHOLE |= {"labels", "statuses", "quotas", "excesses", "refs", "images", "columns"}
WHOLE |= {"heartbeats", "steps"}
UNITS = {
    "blanks": b" ",
    "tabs": b"\t",
    "line breaks": b"\n",
    "line breaks of Windows": b"\r\n",
    "line breaks of Unicode": "\u2028".encode(),
    "lines of one letter": b"a\n",
    "words of one letter": b"a ",
    "blanks at line ends": b"  \n",
    "quotes": b'"',
    "apostrophes": b"'",
    "backslashes": b"\\",
    "lists": b"[",
    "objects": b'{"manifests":',
    "objects of YAML": b"{a: ",
    "brackets": b"(",
    "templates": b"{{ a",
    "references": b"{{a}}",
    "digits": b"9",
    "dots": b"1.",
    "dashes": b"a-",
    "colons": b"a:",
    "slashes": b"a/",
    "one line": b"a",
    "NULs": b"\0",
    "no UTF-8": b"\xff",
    "escapes": b"\x1b[",
    "long escapes": b"\x1b[0;",
    "bars": b"a done |+",
    "columns": b" |",
    "statuses": b"status: response ",
    "quotas": b"exceed quota ",
    "excesses": b"exceed",
    "refs": b'failed commit on ref "a": unexpected ',
    "images": b'image "a',
    "answers": b"HTTP/1.1 200 OK\n\n",
    "headers": b"HTTP/1.1 200 OK\na:b\n",
    "curls": b"curl: (9",
    "digests": f"{DIGEST} ".encode(),
    "rows": f"a b {DIGEST} 1 B linux/amd64 -\n".encode(),
    "roots": f"{DIGEST} 1 B 1 day containerd.io/gc.ref.content".encode(),
    "labels": b"containerd.io/gc.ref.content",
    "snapshots": f"containerd.io/gc.ref.snapshot.a={DIGEST},".encode(),
    "plugins": b"Type:  a\nID:  \n",
    "logs": b'time="" level=info ',
    "beginnings of steps": f"\n{BOUNDARY} begin a\n".encode(),
    "heartbeats": f"\n{BOUNDARY} heartbeat\nx".encode(),
    "ends of steps": f"\n{BOUNDARY} end 0\n".encode(),
    "steps": f"\n{BOUNDARY} begin a\nx\n{BOUNDARY} end 0\n".encode(),
    "records of tar": b"9 a=bcde\n",
}
WORST = {name: (unit * SIZE)[: SIZE if name in WHOLE else SIZE // 4] for name, unit in UNITS.items()}


@cache
def text_of(data: bytes) -> str:
    return Answer(0, data, "").text


def probed(data: bytes) -> None:
    """Read a probe in which one step after the other has this answer."""
    good = {
        "host": b"root\nx86_64\nsudo=\n",
        "ctr": b"ctr\nctr containerd.io 1.6.20\n",
        "help": b"   import   import images\n",
        "sockets": b"open /x.sock\nuse /x.sock\n",
        "namespaces": b"k8s.io\n",
        "version": b"Server:\n  Version:  1.6.20\n",
        "plugins": b"",
        "images-0": HEADER.encode(),
    }
    for step in good:
        answers = {name: Answer(0, data if name == step else detail, "") for name, detail in good.items()}
        with contextlib.suppress(FerryError):
            probe.read(probe.Settings(), ("k8s.io",), answers)
    unknown = {**good, "ctr": b"ctr\nwhat\n", "help": data, "version": b"Server:\n" + data}
    with contextlib.suppress(FerryError):
        probe.read(probe.Settings(), ("k8s.io",), {name: Answer(0, detail, "") for name, detail in unknown.items()})


def sectioned(data: bytes) -> None:
    """Read a script in which a step printed this after much other output."""
    begin, end = f"\n{BOUNDARY} begin a\n".encode(), f"\n{BOUNDARY} end 0\n".encode()
    stream = begin + bytes(16 * SIZE) + data + end
    script = Script({"a": ""})
    script.is_whole(BOUNDARY, stream, stream)
    shell.with_step_headings(BOUNDARY, stream)
    script.read(BOUNDARY, stream, begin + end)


def watched(data: bytes) -> None:
    progress = Progress({DIGEST: 1})
    for at in range(0, len(data), 4000):
        progress.feed(data[at : at + 4000])
    progress.end()
    assert len(progress.items) <= 10_000


def lines_watched(data: bytes) -> None:
    """Read progress in lines of the greatest length that a line of progress may have."""
    progress = Progress()
    for at in range(0, len(data), 4090):
        progress.feed(data[at : at + 4090].replace(b"\n", b" ") + b"\n")


def used(data: bytes) -> None:
    text = text_of(data)
    blobs = usage.parse_blobs(f"DIGEST SIZE AGE LABELS\n{DIGEST} 1B 1 day {text}")
    listing = Listing.parse("k8s.io", HEADER)
    usage.used(listing, usage.parse_containers(f"\n{text}"), usage.parse_parents(f"\n{text}"), blobs)


def in_a_tar(name: str, data: bytes, pax: str = "") -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as made:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.pax_headers = {"comment": pax} if pax else {}
        made.addfile(member, io.BytesIO(data))
    read_whole(file)


def records_of_a_tar(data: bytes) -> None:
    block = tarfile.TarInfo("pax")
    block.type, block.size = tarfile.XHDTYPE, 1 << 16
    raw = block.tobuf(tarfile.USTAR_FORMAT)
    list(tar.members(tar.Stream(io.BytesIO(raw + data[: 1 << 16]))))


def in_a_file(data: bytes, read: Callable[[Path], Any], name: str = "x") -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(data)
        read(file)


def docker_config(data: bytes) -> None:
    def read(file: Path) -> None:
        os.environ["DOCKER_CONFIG"] = str(file.parent)
        credentials._of_docker(HTTPS)

    in_a_file(data, read, "config.json")


def sum_of(file: Path) -> None:
    checksum.expected(file.with_name("x"))


PARSERS: dict[str, Callable[[bytes], object]] = {
    "a listing": lambda data: Listing.parse("k8s.io", text_of(data)),
    "rows of a listing": lambda data: Listing.parse("k8s.io", HEADER + text_of(data)),
    "a row of a listing": lambda data: Listing.parse("k8s.io", f"{HEADER}a b {text_of(data)}"),
    "images check": lambda data: checks.parse_checks(f"a b {DIGEST} complete ({text_of(data)}"),
    "digests": lambda data: parse_digests(text_of(data).split("\n")),
    "what containers use": used,
    "the probe": probed,
    "progress": watched,
    "lines of progress": lines_watched,
    "a refusal": lambda data: refusals.meaning(f"ctr: {text_of(data)}", HTTPS),
    "a failure": lambda data: failures.failure(Answer(1, data, text_of(data)), "a"),
    "last words": lambda data: tail(text_of(data)),
    "sections of an answer": sectioned,
    "curl": lambda data: curl.read(Answer(0, b"curl\n" + data, text_of(data))),
    "curl's words": lambda data: curl.last_words(Answer(1, b"", text_of(data))),
    "wget": lambda data: curl.read(Answer(0, b"wget\n" + data, text_of(data))),
    "what is held": lambda data: leftovers.parse_namespaces(f"namespace a\n{text_of(data)}\nblob {text_of(data)}"),
    "files of ours": lambda data: leftovers.parse_files(f"/{text_of(data)}"),
    "a store": lambda data: ingest.parse_store(f"namespace a\n{text_of(data)}", text_of(data), "a", datetime.now(UTC)),
    "free space": lambda data: free_space.parse(text_of(data)),
    "a challenge": lambda data: Challenge.parse(text_of(data)),
    "a version": lambda data: Version.parse(text_of(data)),
    "ctr's help": lambda data: Capabilities.of_help(text_of(data)),
    "a manifest": Manifest.parse,
    "a reference": lambda data: Reference.parse(text_of(data)),
    "a registry host": lambda data: parse_domain(text_of(data)),
    "a tar": lambda data: read_whole(io.BytesIO(data)),
    "records of a tar": records_of_a_tar,
    "an index.json": lambda data: in_a_tar("index.json", data),
    "a manifest.json": lambda data: in_a_tar("manifest.json", data),
    "the record": record._log_text,
    "a run's record": lambda data: in_a_file(data, past_runs.Run.read),
    "what is shown": lambda data: (shown(text_of(data)), shown_name(text_of(data))),
    "docker's config": docker_config,
    "a checksum": lambda data: in_a_file(data, sum_of, "x.sha256"),
    "a map": lambda data: in_a_file(data, mappings.read_map),
    "an inventory": lambda data: in_a_file(data[: SIZE // 16], Inventory, "x.yaml"),  # PyYAML is slow, but linear
    "a variable": lambda data: in_a_file(b"all:\n  vars:\n    a: " + data[: SIZE // 16], Inventory, "x.yaml"),
    "an inventory in INI": lambda data: in_a_file(data[: SIZE // 16], Inventory, "x.ini"),  # so is shlex
    "hosts in INI": lambda data: in_a_file(b"[a]\nn x=" + data[: SIZE // 16], Inventory, "x.ini"),
    "a variable in INI": lambda data: in_a_file(b"[all:vars]\nx=" + data[: SIZE // 16], Inventory, "x.ini"),
    "ansible.cfg": lambda data: in_a_file(b"[defaults]\n" + data, lambda file: defaults(file.parent), "ansible.cfg"),
    "a template": lambda data: Templates({}, {"a": ""}).value(text_of(data)),
}


def main() -> None:
    for data in WORST.values():
        text_of(data)  # decoded once, before the forks
    for name, parse in PARSERS.items():
        if os.fork() == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
            for words, data in WORST.items():
                try:
                    parse(data)
                    end = "understood"
                except FerryError as error:
                    end = error.kind
                except Exception as error:  # noqa: BLE001
                    end = "no manifest" if name == "a manifest" and isinstance(error, ValueError) else repr(error)[:200]
                print(json.dumps([name, words, end]), flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
