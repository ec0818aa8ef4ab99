"""What ctr 1.2.6 said, and forms of it that two runs have in common.

tests/data/ctr-1.2.6.jsonl holds what ctr 1.2.6 said, word for word, one record a line, in the order in which
they were made. Added to each: `scenario` (its namespace; records of one namespace build on each other),
`prepare` (what was there before), `skip` (why it cannot be replayed) and `real_only` (why the stand-in
differs). A record with an empty argv describes the file that the export before it wrote. Records of pushes and
pulls, and of daemons of other versions, are left out.
"""

import io
import json
import re
import tarfile
from typing import Any

from archives import digest
from records import DATA

RECORDS: list[dict[str, Any]] = [json.loads(line) for line in (DATA / "ctr-1.2.6.jsonl").read_text().splitlines()]
ROLES: dict[str, str] = json.loads((DATA / "ctr-1.2.6-digests.json").read_text())
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


def shown(record: dict[str, Any], text: str, roles: dict[str, str], prefix: str = "") -> str:
    """A record's stdout in a form that two runs have in common."""
    text = listed(record, comparable(text, roles, prefix))
    if text.startswith('{"size"'):
        tar = json.loads(text)
        tar["names"] = sorted(tar["names"]) if isinstance(tar["names"], list) else tar["names"]
        text = json.dumps(tar)
    return text


def readable(record: dict[str, Any]) -> str:
    """The id of a record's test."""
    return re.sub(r"[^\w.,-]+", "-", f"{record['scenario']}-{record['case']}").strip("-")[:100]
