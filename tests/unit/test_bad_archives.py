"""Archives are believed in nothing, and refused with the reason."""

from __future__ import annotations

import gzip
import json
import random
import re
import tarfile
from collections.abc import Callable

import pytest
from archives import (
    NAME,
    REF,
    Image,
    as_json,
    described,
    digest,
    index_of,
    layout,
    linked,
    opened,
    path,
    read_whole,
    tarred,
)
from reading_archives import ARM, FULL, IMAGE, named, packed_fixture, read, refused  # noqa: F401

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import archive, tar
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST


class TestBadArchives:
    def test_are_refused_empty(self) -> None:
        assert refused(b"").message == "it is empty"
        assert "neither an index.json" in refused(tar.END).message

    @pytest.mark.parametrize("data", [b"hello\n", b"x" * 5000, b"\x7fELF" + bytes(2000)])
    def test_are_refused_where_they_are_no_tar(self, data: bytes, packed: Callable[[bytes], bytes]) -> None:
        assert "no tar" in refused(packed(data)).message

    @pytest.mark.parametrize("data", [b"PK\3\4" + bytes(600), b"\x1f\x8b nonsense", b"\x28\xb5\x2f\xfd nonsense" * 9])
    def test_are_refused_where_they_are_something_else_packed(self, data: bytes) -> None:
        assert refused(data).exit_code == 2

    def test_are_refused_cut_off_anywhere(self, packed: Callable[[bytes], bytes]) -> None:
        data = packed(named(**{NAME: FULL}))
        whole = len(data) - (1024 if packed is bytes else 0)
        for length in range(0, whole, max(1, whole // 60)):
            assert refused(data[:length]).kind == "bad-archive"

    def test_are_refused_where_the_end_of_a_tar_is_absent(self) -> None:
        assert refused(tarred(IMAGE.layout(**{NAME: FULL}), end=b"")).message == "it is cut off"

    def test_are_refused_with_a_byte_changed_in_a_compressed_one(self) -> None:
        data = bytearray(gzip.compress(named(**{NAME: FULL})))
        data[-6] ^= 1  # its check sum
        assert "broken" in refused(bytes(data)).message

    def test_are_refused_where_unpacking_takes_more_memory_than_we_have(self) -> None:
        # The header of a frame: magic, no size and no checksum, and a window of 1 << 28 bytes (RFC 8878, 3.1.1.1.2).
        error = refused(b"\x28\xb5\x2f\xfd" + bytes([0, (28 - 10) << 3]) + bytes(512))
        assert "128 MiB" in error.message and "--long" in error.hint

    def test_are_refused_where_a_blob_is_not_what_its_name_says(self, packed: Callable[[bytes], bytes]) -> None:
        files = IMAGE.layout(**{NAME: FULL})
        files[path(IMAGE.layers[1])] = IMAGE.layers[1].replace(b"bbb", b"bcb", 1)
        error = refused(packed(tarred(files)))
        assert "not what its name says" in error.message
        assert digest(IMAGE.layers[1])[7:] in error.detail

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "blobs/../../x", "a/../b", ".."])
    def test_are_refused_with_a_name_that_leads_out(self, name: str) -> None:
        assert "leads out" in refused(tarred({name: b"x", **IMAGE.layout(**{NAME: FULL})})).message

    @pytest.mark.parametrize(
        ("name", "target", "kind"),
        [
            ("a/b", "../../x", tarfile.SYMTYPE),
            ("a/b", "/etc/passwd", tarfile.SYMTYPE),
            ("b", "..", tarfile.SYMTYPE),
            ("a/b", "../x", tarfile.LNKTYPE),
            ("a/b", "/x", tarfile.LNKTYPE),
        ],
    )
    def test_are_refused_with_a_link_that_leads_out(self, name: str, target: str, kind: bytes) -> None:
        assert "leads out" in refused(linked(name, target, kind) + named(**{NAME: FULL})).message

    def test_are_refused_with_links_in_a_ring(self) -> None:
        files = IMAGE.saved("app:1")
        del files["layer0/layer.tar"]
        ring = linked("layer0/layer.tar", "x") + linked("layer0/x", "layer.tar")
        assert "no end" in refused(ring + tarred(files)).message

    @pytest.mark.parametrize("absent", [path(IMAGE.manifest), path(IMAGE.config), path(IMAGE.layers[0])])
    def test_are_refused_where_a_blob_is_absent(self, absent: str) -> None:
        files = IMAGE.layout(**{NAME: FULL})
        del files[absent]
        assert absent[-64:] in refused(tarred(files)).detail

    def test_are_refused_with_two_images_under_one_name(self) -> None:
        entries = [image.entry(**{NAME: FULL}) for image in (IMAGE, ARM)]
        assert f"two images under the name {FULL}" in refused(tarred(layout(IMAGE.blobs | ARM.blobs, *entries))).message

    def test_are_refused_with_one_name_twice_for_different_content(self) -> None:
        files = list(IMAGE.layout(**{NAME: FULL}).items())
        assert "twice" in refused(tarred([*files, ("index.json", b"{}")])).message
        assert read(tarred([*files, files[-1]])).entries

    def test_are_refused_with_an_endless_size(self) -> None:
        files = layout(IMAGE.blobs, IMAGE.entry(**{NAME: REF}))
        files["index.json"] = re.sub(rb'"size": ?[0-9]+', b'"size": Infinity', files["index.json"])
        assert b"Infinity" in files["index.json"]
        assert refused(tarred(files))

    @pytest.mark.parametrize("lie", [-1, 1, 1 << 40])
    def test_are_refused_with_a_size_that_lies(self, lie: int) -> None:
        entry = IMAGE.entry(**{NAME: FULL})
        entry["size"] += lie
        assert "size" in refused(tarred(layout(IMAGE.blobs, entry))).message

    def test_are_refused_with_a_layers_size_that_lies(self) -> None:
        manifest = json.loads(IMAGE.manifest)
        manifest["layers"][0]["size"] = 5
        raw = as_json(manifest)
        files = layout({**IMAGE.blobs, path(raw): raw}, described(raw, OCI_MANIFEST))
        assert "size" in refused(tarred(files)).message

    @pytest.mark.parametrize(
        "index",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"manifests": 7}',
            b'{"manifests": []}',
            b'{"manifests": [1]}',
            b'{"manifests": [{"digest": "x", "size": 1}]}',
            b'{"manifests": [{"digest": "sha256:../../x", "size": 1}]}',
            b'{"manifests": [{"digest": 1, "size": "many"}]}',
            b'{"manifests": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"a": "' + b"x" * (4 << 20) + b'"}',
        ],
    )
    def test_are_refused_with_an_index_that_is_none(self, index: bytes) -> None:
        files = {**IMAGE.layout(**{NAME: FULL}), "index.json": index}
        assert refused(tarred(files)).exit_code == 2

    @pytest.mark.parametrize(
        ("media_type", "raw"),
        [
            (OCI_MANIFEST, b"not JSON"),
            (OCI_MANIFEST, b"[]"),
            (OCI_MANIFEST, b"{}"),
            (OCI_INDEX, IMAGE.manifest),
            (OCI_MANIFEST, as_json({"manifests": [IMAGE.entry()]})),
            (OCI_MANIFEST, as_json({"config": 1})),
            (OCI_MANIFEST, as_json({"config": {}, "layers": 3})),
            (OCI_INDEX, as_json({"manifests": 3})),
            (OCI_INDEX, as_json({"manifests": []})),
            (OCI_INDEX, as_json({"manifests": [{"digest": "x", "size": 0}]})),
            ("application/vnd.docker.distribution.manifest.v1+json", IMAGE.manifest),
            ("", IMAGE.manifest),
            (OCI_MANIFEST, b"{" + b" " * (4 << 20) + b"}"),
        ],
    )
    def test_are_refused_with_a_manifest_that_is_none(self, media_type: str, raw: bytes) -> None:
        files = layout({**IMAGE.blobs, path(raw): raw}, described(raw, media_type))
        assert refused(tarred(files)).exit_code == 2

    @pytest.mark.parametrize("annotations", [{NAME: "R.example/App:1"}, {NAME: "a b"}, {REF: "x:y:z"}])
    def test_give_no_name_that_is_no_reference(self, annotations: dict[str, str]) -> None:
        (entry,) = read(named(**annotations)).entries
        assert not entry.name
        assert "no image reference" in entry.fault

    def test_give_no_name_of_another_digest(self) -> None:
        (entry,) = read(named(**{NAME: f"r.example/app@{digest(b'x')}"})).entries
        assert "another digest" in entry.fault


@pytest.mark.parametrize("number", range(3))
def test_whatever_is_changed_in_an_archive_is_either_harmless_or_refused(number: int) -> None:
    raw, entry = index_of(IMAGE, ARM)
    layouts = tarred(layout({**IMAGE.blobs, **ARM.blobs, path(raw): raw}, entry))
    whole = (layouts, tarred(Image(packed=True).saved("app:1")), gzip.compress(layouts, mtime=0))[number]
    chance = random.Random(number)
    refusals = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at : at + chance.choice((1, 100))]
                case 2:
                    data[at:at] = bytes(chance.choice((1, 512)))
        file = opened(bytes(data))
        try:
            found = read_whole(file)
        except BadArchive:
            refusals += 1
            continue
        given = {digest(b"".join(chunks)) for _, chunks in archive.blobs(file, found, found.digests)}
        assert given == found.digests
    assert refusals > 200
