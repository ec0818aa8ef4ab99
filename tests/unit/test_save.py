"""`save` chooses what an archive is to have, and leaves a whole one or none."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import NAME, REF, Image, digest, index_of, layout, path, read_whole, tarred

from ctr_ferry import errors
from ctr_ferry.ctr.listing import Image as Listed
from ctr_ferry.errors import CannotWrite, UsageError
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from ctr_ferry.transfer import archive_writer, checksum, new_file
from ctr_ferry.transfer.archive_writer import Plan
from tasks.save import parse

IMAGE = Image()
ARM = Image(layers=(tarred({"etc/arm": b"arm"}),), platform={"os": "linux", "architecture": "arm64"})
INDEX, _ = index_of(IMAGE, ARM)
ALL = {digest(blob): blob for blob in (*IMAGE.blobs.values(), *ARM.blobs.values(), INDEX)}
HOST = Platform("linux", "amd64")
FULL, BOTH = "r.example/app:1", "r.example/both:1"
SINGLE = Listed(FULL, OCI_MANIFEST, digest(IMAGE.manifest), "1 KiB", "linux/amd64", frozenset())
MULTI = Listed(BOTH, OCI_INDEX, digest(INDEX), "1 KiB", "linux/amd64,linux/arm64", frozenset())


def content(*absent: bytes) -> Content:
    """What a host has that has all but some."""
    there = {d: blob for d, blob in ALL.items() if blob not in absent}
    documents = {digest(blob): blob for blob in (INDEX, IMAGE.manifest, ARM.manifest) if blob not in absent}
    return Content(frozenset(there), documents)


def planned(*images: Listed, absent: Iterable[bytes] = (), **options: object) -> Plan:
    request = parse(ref=["x"], out="x.tar", **options)  # type: ignore[arg-type]
    return archive_writer.plan(images, content(*absent), HOST, request.platform, every=request.all_platforms)


def blobs_of(made: Plan) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
    for blob in made.blobs:
        data = ALL[blob.digest]
        yield blob, iter((data[:7], data[7:]))


def write(made: Plan, file: Path) -> str:
    return archive_writer.write(made, file, blobs_of(made), lambda *_: None)


class TestThePlan:
    def test_has_all_of_an_image_of_one_platform(self) -> None:
        made = planned(SINGLE)
        assert {blob.digest for blob in made.blobs} == {digest(blob) for blob in IMAGE.blobs.values()}
        assert made.images == (archive_writer.SavedImage(FULL, digest(IMAGE.manifest), ("linux/amd64",)),)

    def test_has_what_is_there_of_an_index_and_the_other_manifests(self) -> None:
        made = planned(MULTI, absent=ARM.layers)
        assert {b.digest for b in made.blobs} >= {digest(b) for b in (INDEX, *IMAGE.blobs.values())}
        assert made.images[0].platforms == ("linux/amd64",)
        assert digest(ARM.manifest) not in {b.digest for b in planned(MULTI, absent=[ARM.manifest]).blobs}
        assert {b.digest for b in planned(MULTI).blobs} == set(ALL)

    def test_has_one_platforms_manifest_where_asked(self) -> None:
        one = planned(MULTI, platform="linux/arm64", absent=IMAGE.layers)
        assert {b.digest for b in one.blobs} == {digest(b) for b in ARM.blobs.values()}
        assert one.images == (archive_writer.SavedImage(BOTH, digest(ARM.manifest), ("linux/arm64",)),)
        (docker,) = json.loads(one.documents["manifest.json"])
        assert docker["Config"] == path(ARM.config)

    def test_has_each_blob_once(self) -> None:
        made = planned(SINGLE, MULTI)
        assert len(made.blobs) == len({blob.digest for blob in made.blobs})
        assert [blob.digest for blob in made.blobs] == sorted(blob.digest for blob in made.blobs)

    @pytest.mark.parametrize("absent", [*IMAGE.layers, IMAGE.config, IMAGE.manifest])
    def test_is_refused_where_a_blob_is_absent(self, absent: bytes) -> None:
        for image in (SINGLE, MULTI):
            with pytest.raises(errors.ContentMissing) as caught:
                planned(image, absent=[absent])
            assert digest(absent) in caught.value.detail

    def test_is_refused_for_all_platforms_where_one_is_not_there(self) -> None:
        with pytest.raises(errors.ContentMissing):
            planned(MULTI, all_platforms=True, absent=ARM.layers)

    def test_is_refused_for_a_platform_that_the_image_has_not(self) -> None:
        for image in (SINGLE, MULTI):
            with pytest.raises(errors.PlatformMissing):
                planned(image, platform="linux/s390x")


class TestTheArchive:
    def test_is_read_as_what_was_planned(self, tmp_path: Path) -> None:
        file = tmp_path / "a.tar"
        write(planned(SINGLE, MULTI), file)
        with file.open("rb") as opened:
            found = read_whole(opened)
        assert [(e.name, e.target.digest) for e in found.entries] == [(FULL, SINGLE.digest), (BOTH, MULTI.digest)]
        assert found.digests == set(ALL)

    def test_carries_both_annotations_and_dockers_list(self) -> None:
        documents = planned(SINGLE, MULTI).documents
        entries = json.loads(documents["index.json"])["manifests"]
        assert [entry["annotations"] for entry in entries] == [{NAME: n, REF: n} for n in (FULL, BOTH)]
        layers = [path(layer) for layer in IMAGE.layers]
        assert json.loads(documents["manifest.json"]) == [
            {"Config": path(IMAGE.config), "RepoTags": [FULL, BOTH], "Layers": layers}
        ]

    def test_has_a_name_with_a_digest_that_load_reads_and_docker_would_refuse(self, tmp_path: Path) -> None:
        pinned = replace(SINGLE, name=f"r.example/app@{SINGLE.digest}")
        made = planned(pinned)
        assert json.loads(made.documents["manifest.json"])[0]["RepoTags"] == []
        write(made, tmp_path / "a.tar")
        assert archive_writer.has_all(tmp_path / "a.tar", made)
        with (tmp_path / "a.tar").open("rb") as opened:
            assert [entry.name for entry in read_whole(opened).entries] == [pinned.name]

    def test_has_the_same_bytes_every_time_and_the_size_that_was_planned(self, tmp_path: Path) -> None:
        made = planned(MULTI)
        for name in ("a.tar", "b.tar"):
            write(made, tmp_path / name)
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
        assert (tmp_path / "a.tar").stat().st_size == made.size

    def test_has_its_sum_beside_it_as_sha256sum_checks_it(self, tmp_path: Path) -> None:
        sha256 = write(planned(SINGLE), tmp_path / "a b.tar")
        assert sha256 == hashlib.sha256((tmp_path / "a b.tar").read_bytes()).hexdigest()
        subprocess.run(["sha256sum", "--check", "--strict", "a b.tar.sha256"], cwd=tmp_path, check=True)

    def test_takes_the_place_of_another_only_when_it_is_whole(self, tmp_path: Path) -> None:
        file = tmp_path / "a.tar"
        file.write_text("before")
        (tmp_path / "a.tar.0123456789abcdef.part").write_text("left by a run that was killed")

        def broken(made: Plan) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
            yield from list(blobs_of(made))[:2]
            raise errors.ConnectionLost("the connection broke")

        made = planned(SINGLE)
        with pytest.raises(errors.ConnectionLost):
            archive_writer.write(made, file, broken(made), lambda *_: None)
        assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.tar", "before")]
        write(made, file)
        assert file.stat().st_size == made.size

    def test_is_written_by_one_run_at_a_time(self, tmp_path: Path) -> None:
        made = planned(SINGLE)

        def in_between() -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
            with pytest.raises(CannotWrite, match="another run"):
                write(made, tmp_path / "a.tar")
            yield from blobs_of(made)

        archive_writer.write(made, tmp_path / "a.tar", in_between(), lambda *_: None)
        assert (tmp_path / "a.tar").stat().st_size == made.size

    def test_is_written_to_no_link_and_no_file_that_somebody_planted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(new_file.secrets, "token_hex", lambda _: "0123456789abcdef")  # even by a name that is known
        victim, folder = tmp_path / "victim", tmp_path / "shared"
        victim.write_text("precious")
        folder.mkdir()
        for prepared in ("a.tar.part", "a.tar.sha256.part", "a.tar.0123456789abcdef.part"):
            (folder / prepared).symlink_to(victim)
        with pytest.raises(CannotWrite, match="control machine"):
            write(planned(SINGLE), folder / "a.tar")
        monkeypatch.undo()
        write(planned(SINGLE), folder / "a.tar")
        assert victim.read_text() == "precious"
        assert not (folder / "a.tar").is_symlink() and (folder / "a.tar.0123456789abcdef.part").is_symlink()

    def test_takes_the_place_of_a_link_and_leaves_what_it_points_at(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        for name in ("a.tar", "a.tar.sha256"):
            (tmp_path / name).symlink_to(victim)
        write(planned(SINGLE), tmp_path / "a.tar")
        assert victim.read_text() == "precious"
        assert not any((tmp_path / name).is_symlink() for name in ("a.tar", "a.tar.sha256"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
    def test_another_users_file_keeps_nobody_from_it(self, tmp_path: Path) -> None:
        prepared = tmp_path / "a.tar.0123456789abcdef.part"
        with prepared.open("wb") as opened:
            os.chown(prepared, 65534, 65534)
            fcntl.flock(opened, fcntl.LOCK_EX)
            write(planned(SINGLE), tmp_path / "a.tar")
        assert prepared.exists()

    def test_is_its_users_alone_until_it_is_whole(self, tmp_path: Path) -> None:
        made = planned(SINGLE)

        def in_between() -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
            (part,) = tmp_path.iterdir()
            assert part.stat().st_mode & 0o777 == 0o600
            yield from blobs_of(made)

        archive_writer.write(made, tmp_path / "a.tar", in_between(), lambda *_: None)
        (tmp_path / "plain").touch()
        assert {each.stat().st_mode for each in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}

    def test_a_part_of_ours_that_others_can_lock_keeps_nobody_from_it(self, tmp_path: Path) -> None:
        left = tmp_path / "a.tar.0123456789abcdef.part"
        left.touch(0o644)
        left.chmod(0o644)
        with left.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH)
            write(planned(SINGLE), tmp_path / "a.tar")
            left.chmod(0o600)
            with pytest.raises(CannotWrite, match="another run"):
                write(planned(SINGLE), tmp_path / "a.tar")

    def test_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        real_sync, real_rename = os.fsync, Path.rename

        def sync(descriptor: int) -> None:
            seen.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".")[0])
            real_sync(descriptor)

        def rename(self: Path, target: Path) -> Path:
            seen.append(f"rename {target.name}")
            return real_rename(self, target)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(Path, "rename", rename)
        write(planned(SINGLE), tmp_path / "a.tar")
        folder = tmp_path.name
        assert seen == ["a", "rename a.tar", folder, "a", "rename a.tar.sha256", folder]

    def test_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(CannotWrite, match="control machine") as caught:
            write(planned(SINGLE), tmp_path / "none" / "deeper" / "a.tar")
        assert caught.value.detail == "No such file or directory"

    @pytest.mark.parametrize("limit", [100, 5000, 9000])
    def test_that_finds_no_more_room_is_an_error_and_leaves_nothing(self, tmp_path: Path, limit: int) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # bytes; what is still in a buffer, too
        try:
            with pytest.raises(CannotWrite, match="control machine"):
                write(planned(SINGLE), tmp_path / "a.tar")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []

    def test_reports_how_far_it_has_come(self, tmp_path: Path) -> None:
        made, moved = planned(SINGLE), []
        archive_writer.write(made, tmp_path / "a.tar", blobs_of(made), lambda done, total: moved.append((done, total)))
        assert [done for done, _ in moved] == sorted(done for done, _ in moved)
        assert {total for _, total in moved} == {made.size}
        assert moved[-1][0] == made.size - 1024


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"ref": ["a"]},
            {"out": "a.tar"},
            {"ref": [], "out": "a.tar"},
            {"ref": ["A B"], "out": "a.tar"},
            {"ref": ["a"], "out": "/none/deeper/a.tar"},
            {"ref": ["a"], "out": "a.tar", "platform": "linux/amd64", "all_platforms": True},
            {"ref": ["a"], "out": "a.tar", "platform": "amd64"},
            {"ref": ["a"], "out": "a.tar", "namespace": "a/b"},
        ],
    )
    def test_that_make_no_sense_are_refused(self, options: dict[str, object]) -> None:
        with pytest.raises(UsageError):
            parse(**options)  # type: ignore[arg-type]

    def test_name_a_file_or_a_folder_with_a_file_for_each_host(self, tmp_path: Path) -> None:
        assert parse(ref=["a"], out=str(tmp_path / "a.tar")).file("node1") == tmp_path / "a.tar"
        assert parse(ref=["a"], out=str(tmp_path)).file("node1") == tmp_path / "node1.tar"
        assert parse(ref=["a"], out=f"{tmp_path}/new/").file("root@h:22") == tmp_path / "new" / "root@h:22.tar"


def test_an_archive_that_lost_its_check_sum_gets_it_again(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    sha256 = write(planned(SINGLE), file)
    beside = tmp_path / "a.tar.sha256"
    text = beside.read_text()
    beside.unlink()  # as by a run that was killed between the two
    assert archive_writer.sha256_of(file) == sha256
    assert beside.read_text() == text
    assert archive_writer.sha256_of(file) == sha256


def test_a_check_sum_that_is_wrong_is_neither_believed_nor_left(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    sha256 = write(planned(SINGLE), file)
    text = checksum.beside(file).read_text()
    checksum.beside(file).write_text(f"{'0' * 64}  a.tar\n")
    assert archive_writer.sha256_of(file) == sha256
    assert checksum.beside(file).read_text() == text


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_beside_an_archive_stays(tmp_path: Path, make: Any) -> None:
    file = tmp_path / "a.tar"
    sha256 = write(planned(SINGLE), file)
    checksum.beside(file).unlink()
    make(checksum.beside(file))
    assert archive_writer.sha256_of(file) == sha256
    assert not checksum.beside(file).is_file()


@pytest.mark.parametrize("beside", [b"", b"\xff\xfe", b"%s  other.tar\n" % (b"a" * 64)])
def test_a_check_sum_of_something_else_is_neither_believed_nor_replaced(tmp_path: Path, beside: bytes) -> None:
    file = tmp_path / "a.tar"
    sha256 = write(planned(SINGLE), file)
    checksum.beside(file).write_bytes(beside)
    assert archive_writer.sha256_of(file) == sha256
    assert checksum.beside(file).read_bytes() == beside


def test_a_check_sum_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    file = tmp_path / "a.tar"
    sha256 = write(planned(SINGLE), file)
    checksum.beside(file).unlink()
    monkeypatch.setattr(checksum, "write", refuse)
    assert archive_writer.sha256_of(file) == sha256


def test_the_check_sum_of_an_archive_that_was_replaced_meanwhile_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.tar"
    write(planned(SINGLE), file)
    checksum.beside(file).unlink()
    real = hashlib.file_digest

    def slow(*words: Any) -> Any:
        (tmp_path / "new").write_bytes(b"another")
        (tmp_path / "new").rename(file)
        return real(*words)

    monkeypatch.setattr(archive_writer.hashlib, "file_digest", slow)
    archive_writer.sha256_of(file)
    assert not checksum.beside(file).exists()


def test_an_archive_that_has_it_all_is_known_again(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    write(planned(SINGLE), file)
    assert archive_writer.has_all(file, planned(SINGLE))
    assert not archive_writer.has_all(file, planned(MULTI))
    os.mkfifo(tmp_path / "pipe")
    assert not archive_writer.has_all(tmp_path / "pipe", planned(SINGLE))
    file.write_bytes(tarred(layout(IMAGE.blobs, IMAGE.entry(**{NAME: "r.example/other:1"}))))
    assert not archive_writer.has_all(file, planned(SINGLE))
    file.write_text("no archive")
    assert not archive_writer.has_all(file, planned(SINGLE))
