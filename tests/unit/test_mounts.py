"""What a registry may be asked to mount is read from labels; they are taken off for one push, and put back."""

from __future__ import annotations

from pathlib import Path

import pytest
from cut_off import run_cut

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.mounts import Mounts
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.version import Capabilities
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Script

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
PLACE = Place(Ctr(("ctr",), "/x.sock", Capabilities.of_help("")), "k8s.io", "k8s.io", "", "ctr-ferry.1", False)
KEY = "containerd.io/distribution.source.r.example"


def mounts(name: str = "r.example:5000/team/x:1") -> Mounts:
    return Mounts(PLACE, Reference.parse(name))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (f"{KEY}=team/a", "team/a"),
        (f"a=b,{KEY}=team/a,team/b,z=sha256:0", "team/a,team/b"),
        (f"{KEY}.other=team/a,{KEY}=team/b", "team/b"),
        (f"{KEY}=team/x", None),  # from there, nothing is mounted
        (f"{KEY}=", None),
        (f"{KEY}=$(x)", None),
        ("-", None),
        ("a=b,c", None),
    ],
)
@pytest.mark.parametrize("size", ["29B\t", "5.149 kB\t\t"])
def test_the_repositories_of_a_blob_are_read_from_its_labels(labels: str, found: str | None, size: str) -> None:
    text = f"DIGEST\tSIZE\tAGE\tLABELS\n{A}\t{size}17 minutes\t{labels}\n{B}\t1B\t1 day\t{KEY}=team/of-another-image\n"
    assert mounts().read(text, {A}).sources == (((A, found),) if found else ())


@pytest.mark.parametrize(
    ("name", "host"), [("r.example:5000/a:1", "r.example"), ("[::1]:5000/a:1", "::1"), ("docker.io/a/b:1", "docker.io")]
)
def test_the_label_is_that_of_the_registrys_host(name: str, host: str) -> None:
    assert f'containerd.io/distribution.source.{host}"' in mounts(name).question()


CTR = """#!/bin/sh
# A ctr that keeps the labels of blobs in files, one file for each blob.
cd "$FOLDER" || exit
[ "$1" != --timeout ] || shift 2
case "$5 $6" in
"content ls") grep -l "$KEY=." sha256:*; exit 0 ;;
"content label") : ;;
*) exit 1 ;;
esac
echo "$8" >"$7"
"""


def test_labels_are_off_during_the_push_and_back_afterwards_unless_others_set_them(tmp_path: Path) -> None:
    ctr = tmp_path / "ctr"
    ctr.write_text(CTR)
    ctr.chmod(0o755)
    for digest in (A, B, C):
        (tmp_path / digest).write_text(f"{KEY}=team/a\n")
    made = mounts().read("".join(f"{each}\t1B\t1 day\t{KEY}=team/a\n" for each in (A, B)), {A, B, C})
    seen = f'cat "$FOLDER"/sha256:* >"$FOLDER/seen"; echo "{KEY}=team/new" >"$FOLDER/{B}"'
    script = Script({"push": f"{made.take_off()}\n{seen}"}, cleanup=made.put_back())
    run_cut(script, PATH=f"{tmp_path}:/usr/bin:/bin", FOLDER=str(tmp_path), KEY=KEY)
    assert (tmp_path / "seen").read_text().split() == [f"{KEY}=", f"{KEY}=", f"{KEY}=team/a"]
    left = [(tmp_path / digest).read_text().strip() for digest in (A, B, C)]
    assert left == [f"{KEY}=team/a", f"{KEY}=team/new", f"{KEY}=team/a"]
