"""What people see of real runs, on a real pseudo-terminal: lines that fit, names that are whole, and a recap."""

from __future__ import annotations

import re
import secrets

import pytest
from ferry import Fab, Stage
from screen import seen

from ctr_ferry.ranges import folded
from lab.fleet import Fleet, Node
from lab.images import BuiltImage, build


@pytest.fixture(scope="session")
def image(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image of this session alone."""
    assert fleet.nodes
    return build(tmp_path_factory.mktemp("images"), seed=secrets.randbits(32))


COMMAND = re.compile(r"\bfab -H ")


def lines_of(fab: Fab, columns: int, *words: str) -> list[str]:
    return seen(fab.argv(*words), columns, fab.environment(NO_COLOR="1")).splitlines()


@pytest.mark.parametrize("columns", [80, 200])
def test_a_retag_and_a_listing_fit_and_end_with_a_recap(
    fab: Fab, stage: Stage, image: BuiltImage, columns: int
) -> None:
    src, dst = stage.name(), stage.name(registry="registry-with-a-long-name.example")
    stage.seed(image, src)
    hosts, count = ",".join(folded(stage.nodes)), len(stage.nodes)
    retag = lines_of(fab, columns, "-H", hosts, "retag", "--src", src, "--dst", dst)
    assert retag[-1] == f"RECAP changed={count}"
    assert "by importing an index" in re.sub(r"\s+", " ", " ".join(retag))
    listing = lines_of(fab, columns, "-H", hosts, "images", "--ref", src, "--ref", dst)
    assert listing[-1] == f"RECAP ok={count}"
    for lines in (retag, listing):
        assert [line for line in lines if len(line) > columns] == []
        words = {word.rstrip(",") for line in lines for word in line.split()}
        assert {src, dst, image.target.digest[7:19]} <= words
        assert image.target.digest not in " ".join(lines)
    assert image.target.digest in " ".join(lines_of(fab, columns, "-H", hosts, "images", "--ref", src, "--wide"))


def test_a_failure_names_the_hosts_in_a_range_and_how_to_see_the_logs(fab: Fab, stage: Stage) -> None:
    src, hosts = stage.name("nowhere"), ",".join(folded(stage.nodes))
    *above, logs, last = lines_of(fab, 80, "-H", hosts, "retag", "--src", src, "--dst", stage.name("x"))
    assert last == f"RECAP failed={len(stage.nodes)} ({', '.join(folded(stage.nodes))})"
    assert re.fullmatch(r"logs: fab show --log --run \S+-retag-[0-9a-f]{4}", logs)
    assert [line for line in above if len(line) > 80 and not COMMAND.search(line)] == []


def test_live_lines_have_no_colour_where_nobody_wants_one_and_a_dumb_terminal_has_none(fab: Fab, node3: Node) -> None:
    argv = fab.argv("-H", node3.name, "images")
    plain = seen(argv, 100, fab.environment(NO_COLOR="1", TERM="xterm"), stderr=True)
    assert "\x1b[" in plain and not re.search(r"\x1b\[[0-9;]*m", plain)
    assert "\x1b" not in seen(argv, 100, fab.environment(TERM="dumb"), stderr=True)


def test_what_is_for_a_file_has_no_recap(fab: Fab, node3: Node) -> None:
    run = fab("-H", node3.name, "images", "--csv")
    assert run.exit == 0 and "RECAP" not in run.out + run.err
    run = fab("-H", node3.name, "images", "--json")
    assert run.exit == 0 and "RECAP" not in run.out + run.err
