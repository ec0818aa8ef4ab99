"""ctr's command lines have flags before positional arguments, and every word survives quoting."""

from __future__ import annotations

import inspect
import shlex
import subprocess
from pathlib import Path

import pytest
from records import VERSIONS, record

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.gc_root import Root
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import Descriptor

DIGEST = "sha256:" + "ab" * 32
START = ["k3s", "ctr", "--address", "/run/my sock", "--namespace", "k8s.io"]


def ctr(version: str) -> Ctr:
    parsed = Version.parse(record(version, "--version").stdout)
    assert parsed
    return Ctr(("k3s", "ctr"), "/run/my sock", Capabilities.of_version(parsed))


def words(line: str) -> list[str]:
    """What sh makes of a line, our common start taken off."""
    split = shlex.split(line)
    assert split[: len(START)] == START
    return split[len(START) :]


def test_a_line_has_ctr_address_and_namespace_first() -> None:
    assert shlex.split(ctr("1.2.6").line("k8s.io", "version")) == [*START, "version"]


NASTY = "a'b\"c $(touch /tmp/x) `id` \n;|&<>*?[x]{y}~!\\"


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("images", (NASTY,)),
        ("existing", (NASTY,)),
        ("content", (NASTY,)),
        ("document", (NASTY,)),
        ("tag", (NASTY, NASTY)),
        ("export_stdout", (NASTY,)),
        ("ingest", (NASTY, 1, NASTY)),
        ("label", (NASTY, NASTY)),
        ("relabel", (NASTY, NASTY)),
        ("remove", (NASTY,)),
    ],
)
def test_no_word_of_a_user_or_a_host_reaches_the_shell_unquoted(method: str, arguments: tuple[object, ...]) -> None:
    line = getattr(ctr("2.1.9"), method)(NASTY, *arguments)
    split = shlex.split(line)
    assert split[5] == NASTY  # the namespace
    assert sum(NASTY in word for word in split) >= 2


BUILDERS = {
    "images": ("r.example/a:1",),
    "existing": ("r.example/a:1",),
    "content": (DIGEST,),
    "document": (DIGEST,),
    "digests": (),
    "label": (DIGEST, "key=value"),
    "relabel": ("r.example/a:1", "key="),
    "tag": ("r.example/a:1", "r.example/b:1"),
    "import_stdin": ("--no-unpack",),
    "export_stdout": ("r.example/a:1",),
    "ingest": (DIGEST, 7, "key"),
    "remove": ("r.example/a:1",),
}


def test_every_builder_of_a_command_line_is_tested() -> None:
    public = {n for n, f in inspect.getmembers(Ctr, inspect.isfunction) if not n.startswith("_")}
    assert public - {"line"} == set(BUILDERS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("builder", BUILDERS)
def test_flags_come_before_positionals_on_every_version(version: str, builder: str) -> None:
    line, _, _ = getattr(ctr(version), builder)("k8s.io", *BUILDERS[builder]).partition(" | ")
    command = words(line)[2:]
    takes_value = {"--expected-digest", "--expected-size", "--oci-name", "--oci-ref-name"}
    while command and command[0].startswith("-") and command[0] != "-":
        command = command[2 if command[0] in takes_value else 1 :]
    assert not [word for word in command if word.startswith("-") and word != "-"]


@pytest.mark.parametrize(
    ("version", "tag", "imported", "exported"),
    [
        ("1.2.6", ["tag"], ["import", "-"], ["export", "-", "a:1"]),
        ("1.6.20", ["tag"], ["import", "-"], ["export", "-", "a:1"]),
        ("1.7.24", ["tag", "--local"], ["import", "--local", "-"], ["export", "--local=true", "-", "a:1"]),
        ("2.1.9", ["tag", "--local"], ["import", "--local", "-"], ["export", "--local=true", "-", "a:1"]),
    ],
)
def test_local_is_used_where_it_is_known(
    version: str, tag: list[str], imported: list[str], exported: list[str]
) -> None:
    one = ctr(version)
    assert words(one.tag("k8s.io", "a:1", "b:1")) == ["images", *tag, "a:1", "b:1"]
    assert words(one.import_stdin("k8s.io")) == ["images", *imported]
    assert words(one.export_stdout("k8s.io", "a:1")) == ["images", *exported]


def test_no_tag_is_forced_since_that_deletes_the_name_first() -> None:
    assert words(ctr("2.1.9").tag("k8s.io", "a:1", "b:1")) == ["images", "tag", "--local", "a:1", "b:1"]


def test_old_imports_and_exports_name_the_repository_and_the_ref() -> None:
    assert words(ctr("1.1.8").import_stdin("k8s.io", oci_name="r.example/a"))[1:] == [
        "import", "--oci-name", "r.example/a", "-",
    ]  # fmt: skip
    assert words(ctr("1.2.6").export_stdout("k8s.io", "a:1", ref_name="b:1"))[1:] == [
        "export", "--oci-ref-name", "b:1", "-", "a:1",
    ]  # fmt: skip


def test_a_flag_of_export_has_its_value_since_some_versions_swap_what_follows_a_bare_one() -> None:
    for version in VERSIONS:
        exported = words(ctr(version).export_stdout("k8s.io", "a:1", all_platforms=True))[2:]
        assert exported[-2:] == ["-", "a:1"]
        assert "--all-platforms=true" in exported
        assert all(word.endswith("=true") for word in exported[:-2])


def test_a_listing_of_some_names_filters_for_exactly_these() -> None:
    assert words(ctr("1.2.6").images("k8s.io"))[1:] == ["ls"]
    assert words(ctr("1.2.6").images("k8s.io", "a:1", "b:1"))[1:] == ["ls", 'name=="a:1"', 'name=="b:1"']


def test_labels_that_keep_blobs_are_put_on_and_taken_off() -> None:
    one, label = ctr("1.2.6"), ["content", "label"]
    blobs = [Descriptor("layer", digest, 1) for digest in ("x", "y")]
    root = Root(Place(one, "k8s.io", "k8s.io", "/root", NASTY, cri_managed=True), blobs, 0)
    put = [
        *label,
        root.digest,
        f"containerd.io/gc.root={NASTY}",
        f"containerd.io/gc.ref.content.{NASTY}.0=x",
        f"containerd.io/gc.ref.content.{NASTY}.1=y",
    ]
    assert f"  {shlex.join([*START, *put])} >/dev/null" in root.prepare()
    taken = shlex.split(root.release())
    assert taken[taken.index("content") :] == [*put[:3], *(f"{word.partition('=')[0]}=" for word in put[3:])]
    assert words(one.label("k8s.io", DIGEST, "a=1", "b=")) == [*label, DIGEST, "a=1", "b="]


def test_a_command_of_a_clean_up_ends_by_itself() -> None:
    line = shlex.split(ctr("1.2.6").bounded.line("k8s.io", "content", "active"))
    assert line == [*START[:2], "--timeout", "60s", *START[2:], "content", "active"]


def test_a_manifest_is_cut_off_where_it_is_larger_than_any_can_be() -> None:
    assert ctr("1.2.6").document("k8s.io", DIGEST).endswith(f"content get {DIGEST} | head -c {(4 << 20) + 1}")


def test_a_manifest_comes_from_its_file_where_that_can_be_read(tmp_path: Path) -> None:
    step = ctr("1.2.6").document("k8s.io", DIGEST, f"{tmp_path}/content root")
    absent = subprocess.run(["sh", "-c", step], capture_output=True, text=True, check=False)
    assert "k3s" in absent.stderr  # there is no such ctr here
    file = tmp_path / "content root/blobs" / DIGEST.replace(":", "/")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}" * (3 << 20))
    there = subprocess.run(["sh", "-c", step], capture_output=True, check=True)
    assert len(there.stdout) == (4 << 20) + 1
