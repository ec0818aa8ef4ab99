"""Of an archive, documents of images alone are kept, and the form counts that has what is wanted."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from typing import ClassVar

import pytest
from archives import (
    NAME,
    Image,
    as_json,
    described,
    digest,
    index_of,
    layout,
    listing,
    opened,
    path,
    read_whole,
    tarred,
)
from reading_archives import ARM, FULL, IMAGE, packed_fixture  # noqa: F401

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import archive, archive_files, tar
from ctr_ferry.oci.descriptor import OCI_INDEX


class TestDocuments:
    """Only what images have as indexes, manifests and configs is kept, however much else is JSON."""

    @pytest.mark.parametrize("kept", [0, 4000, 1 << 20])
    def test_of_images_are_all_there_whatever_was_not_kept_at_first(
        self, packed: Callable[[bytes], bytes], kept: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive_files, "MOST_KEPT", kept)
        sboms = [b'{"sbom": "' + str(n).encode() * 3000 + b'"}' for n in range(5)]
        image = Image(layers=(*sboms, *IMAGE.layers))
        raw, entry = index_of(image, ARM)
        found = read_whole(opened(packed(tarred(layout({**image.blobs, **ARM.blobs, path(raw): raw}, entry)))))
        assert dict(found.documents) == {
            digest(d): d for d in (raw, image.manifest, image.config, ARM.manifest, ARM.config)
        }

    def test_take_no_memory_for_sboms(self) -> None:
        image = Image(layers=tuple(b"{" + bytes([n]) * (3 << 20) + b"}" for n in range(24)))
        file = opened(gzip.compress(tarred(image.layout(**{NAME: FULL})), 1))
        tracemalloc.start()
        assert set(read_whole(file).documents) == {digest(image.manifest), digest(image.config)}
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < archive_files.MOST_KEPT + (12 << 20)

    @pytest.mark.parametrize("form", ["layout", "saved"])
    def test_that_no_image_has_so_many_of_are_refused_before_they_are_read(
        self, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive_files, "MOST_DOCUMENTS", 1 << 20)
        images = [Image(platform={"os": "linux", "architecture": "amd64", "x": chr(97 + n) * 10**6}) for n in range(16)]
        if form == "layout":
            blobs = {name: blob for image in images for name, blob in image.blobs.items()}
            files = layout(blobs, *(image.entry(**{NAME: FULL}) for image in images))
        else:
            saved = [image.saved(f"r.example/x:{n}") for n, image in enumerate(images)]
            listed = [each for files in saved for each in json.loads(files["manifest.json"])]
            files = {name: data for files in saved for name, data in files.items()} | {"manifest.json": as_json(listed)}
        monkeypatch.setattr(archive_files, "MOST_KEPT", 0)
        file = opened(gzip.compress(tarred(files), 1))
        tracemalloc.start()
        with pytest.raises(BadArchive, match="manifests and configs have more than 1 MiB"):
            read_whole(file)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 8 << 20

    def test_and_layers_of_many_images_take_a_few_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A compressed archive cannot be entered in its middle: one pass for each config or layer had no end."""
        monkeypatch.setattr(archive_files, "MOST_KEPT", 0)
        images = [
            Image(layers=(tarred({"a": bytes([n])}), tarred({"b": bytes([n])})), platform={"x": str(n)}, packed=True)
            for n in range(20)
        ]
        files, listed = dict[str, bytes](), []
        for n, image in enumerate(images):
            named = {f"{n}/{name}": data for name, data in image.saved().items() if name != "manifest.json"}
            files |= named
            config, *layers = named
            listed.append({"Config": config, "RepoTags": [f"r.example/x:{n}"], "Layers": layers})
        file = opened(gzip.compress(tarred(files | {"manifest.json": as_json(listed)})))
        passes: list[int] = []
        begin = tar.Stream.__init__
        monkeypatch.setattr(tar.Stream, "__init__", lambda self, f: (passes.append(1), begin(self, f))[1])
        assert len(read_whole(file).entries) == 20
        assert len(passes) < 8

    def test_that_change_while_they_are_read_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive_files, "MOST_KEPT", 0)
        data = tarred(IMAGE.layout(**{NAME: FULL}))
        file = opened(data)
        files = archive_files.Files(file)
        file.getbuffer()[data.index(b'"schemaVersion"') :][:5] = b"CHANG"
        with pytest.raises(BadArchive, match="changed while"):
            files.documents(files.blobs.values())

    def test_that_many_images_share_are_not_walked_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "_MOST_LISTED", 100)
        shared, _ = index_of(*[IMAGE] * 30)
        tops = [listing(described(shared, OCI_INDEX), described(str(n).encode(), "x")) for n in range(4)]
        files = {**IMAGE.blobs, path(shared): shared, **{path(raw): raw for raw, _ in tops}}
        entries = [{**entry, "annotations": {NAME: f"r.example/app:{n}"}} for n, (_, entry) in enumerate(tops)]
        assert read_whole(opened(tarred(layout(files, *entries[:2]))))
        with pytest.raises(BadArchive, match="list more than 100"):
            read_whole(opened(tarred(layout(files, *entries))))

    def test_that_have_many_names_are_checked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        raw, entry = index_of(IMAGE, ARM)
        entries = [{**entry, "annotations": {NAME: f"r.example/app:{n}"}} for n in range(50)]
        asked: list[object] = []
        absent = archive.Archive.absent
        monkeypatch.setattr(
            archive.Archive, "absent", lambda self, each, tree: (asked.append(each), absent(self, each, tree))[1]
        )
        found = read_whole(opened(tarred(layout({**IMAGE.blobs, **ARM.blobs, path(raw): raw}, *entries))))
        assert (len(found.entries), len(asked)) == (50, 2)


class TestTwoForms:
    """An index.json and a manifest.json in one archive: the one counts that has what is wanted."""

    LISTED: ClassVar = [{"Config": path(IMAGE.config), "RepoTags": ["x:1"], "Layers": [path(b) for b in IMAGE.layers]}]

    @pytest.mark.parametrize(
        ("index", "name"),
        [
            (layout(IMAGE.blobs, IMAGE.entry(**{NAME: FULL})), FULL),
            (layout(IMAGE.blobs, IMAGE.entry()), "docker.io/library/x:1"),
            (layout(IMAGE.blobs), "docker.io/library/x:1"),
            ({**IMAGE.blobs, "index.json": b"{}"}, "docker.io/library/x:1"),
            (layout(IMAGE.blobs, ARM.entry(**{NAME: FULL})), "docker.io/library/x:1"),
        ],
    )
    def test_the_index_counts_unless_it_does_not_serve(self, index: dict[str, bytes], name: str) -> None:
        file = opened(tarred({**index, "manifest.json": as_json(self.LISTED)}))

        def choose(found: archive.Archive) -> list[str]:
            found.check(found.entries, file)
            if not all(entry.name for entry in found.entries):
                raise BadArchive("no name")
            return [entry.name for entry in found.entries]

        assert archive.read(file, choose)[1] == [name]

    def test_the_error_is_the_indexs_where_neither_serves(self) -> None:
        files = layout(IMAGE.blobs, ARM.entry(**{NAME: FULL}))
        with pytest.raises(BadArchive, match="not whole"):
            read_whole(opened(tarred({**files, "manifest.json": b"[]"})))
