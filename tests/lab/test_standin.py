"""node1's ctr answers as ctr 1.2.6 answered: records of the real one, replayed.

With CTR_FERRY_LEGACY node1's ctr is a real one, and the same records are replayed on it.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from standin_records import RECORDS, ROLES, comparable, readable, recorded_tar, shown
from standin_replay import Replay

REAL = "CTR_FERRY_LEGACY" in os.environ


@pytest.fixture(scope="module")
def replay(fleet: Any) -> Iterator[Replay]:
    if "node1" not in fleet.nodes:
        pytest.skip("the fleet has no node1")
    replay = Replay(fleet.nodes["node1"])
    yield replay
    replay.clean()


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
