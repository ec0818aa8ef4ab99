"""Archives of either form have the images and names that containerd finds in them, and are read in little memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import sys
import tarfile
import tracemalloc
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
    listing,
    opened,
    path,
    read_whole,
    tarred,
)
from reading_archives import ARM, FULL, IMAGE, named, packed_fixture, read, refused  # noqa: F401

from ctr_ferry.oci import archive, docker_archive, tar
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, SCHEMA_1, Descriptor, Platform

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class TestLayouts:
    def test_have_their_images_blobs_and_sizes(self, packed: Callable[[bytes], bytes]) -> None:
        found = read(packed(named(**{NAME: FULL})))
        target = Descriptor(OCI_MANIFEST, digest(IMAGE.manifest), len(IMAGE.manifest))
        assert found.entries == (archive.Entry(FULL, target),)
        assert found.digests == {digest(blob) for blob in IMAGE.blobs.values()}
        assert {d: found.size(d) for d in found.digests} == {digest(b): len(b) for b in IMAGE.blobs.values()}
        (manifest,) = found.tree(target).manifests
        assert found.tree(target).blobs(manifest)[0].digest == digest(IMAGE.config)
        assert manifest.platform == Platform("linux", "amd64")

    def test_give_the_wanted_blobs_in_their_own_order(self, packed: Callable[[bytes], bytes]) -> None:
        file = opened(packed(named(**{NAME: FULL})))
        found = read_whole(file)
        wanted = [digest(IMAGE.layers[1]), digest(IMAGE.config)]
        given = [(d, b"".join(chunks)) for d, chunks in archive.blobs(file, found, wanted)]
        assert given == [(digest(IMAGE.config), IMAGE.config), (digest(IMAGE.layers[1]), IMAGE.layers[1])]

    def test_give_a_blob_though_the_one_before_was_not_taken(self, packed: Callable[[bytes], bytes]) -> None:
        file = opened(packed(named(**{NAME: FULL})))
        found = read_whole(file)
        last = [chunks for _, chunks in archive.blobs(file, found, found.digests)][-1]
        assert b"".join(last) == IMAGE.manifest

    @pytest.mark.parametrize(
        ("annotations", "name"),
        [
            ({NAME: FULL, REF: "1"}, FULL),
            ({NAME: FULL, REF: "other.example/x:2"}, FULL),
            ({REF: FULL}, FULL),
            ({REF: "app:1"}, "docker.io/library/app:1"),
            ({REF: "team/app"}, "docker.io/team/app:latest"),
            ({NAME: "busybox"}, "docker.io/library/busybox:latest"),
            ({REF: "1"}, ""),
            ({REF: "latest"}, ""),
            ({NAME: digest(b"config")}, ""),
            ({NAME: f"r.example/app@{digest(IMAGE.manifest)}"}, f"r.example/app@{digest(IMAGE.manifest)}"),
            ({NAME: f"r.example/app:1@{digest(IMAGE.manifest)}"}, FULL),
            ({}, ""),
        ],
    )
    def test_name_images_as_containerd_reads_them(self, annotations: dict[str, str], name: str) -> None:
        assert read(named(**annotations)).entries[0].name == name

    def test_name_an_image_with_tag_and_digest_as_kubelet_looks_for_either(self) -> None:
        pinned = f"r.example/app@{digest(IMAGE.manifest)}"
        found = read(named(**{NAME: f"{FULL}@{digest(IMAGE.manifest)}"}))
        assert [entry.name for entry in found.entries] == [FULL, pinned]

    def test_may_have_their_index_first_and_a_dot_before_every_name(self) -> None:
        files = dict(reversed(IMAGE.layout(**{NAME: FULL}).items()))
        assert read(tarred({f"./{name}": data for name, data in files.items()})).entries[0].name == FULL

    def test_may_have_one_image_under_several_names(self) -> None:
        entries = [IMAGE.entry(**{NAME: name}) for name in (FULL, "r.example/app:2", FULL)]
        found = read(tarred(layout(IMAGE.blobs, *entries)))
        assert [entry.name for entry in found.entries] == [FULL, "r.example/app:2", FULL]

    def test_know_the_platforms_of_an_index(self) -> None:
        raw, entry = index_of(IMAGE, ARM)
        found = read(tarred(layout({**IMAGE.blobs, **ARM.blobs, path(raw): raw}, entry)))
        (target,) = {each.target for each in found.entries}
        assert target == Descriptor(OCI_INDEX, digest(raw), len(raw))
        tree = found.tree(target)
        assert [str(each.platform) for each in tree.manifests] == ["linux/amd64", "linux/arm64"]
        assert [found.absent(each, tree) for each in tree.manifests] == [[], []]

    def test_may_lack_platforms_of_an_index_but_not_all(self) -> None:
        raw, entry = index_of(IMAGE, ARM)
        found = read(tarred(layout({**IMAGE.blobs, path(raw): raw}, entry)))
        tree = found.tree(found.entries[0].target)
        assert found.absent(tree.manifests[1], tree) == [digest(ARM.manifest)]
        parts = {
            name: blob for name, blob in (IMAGE.blobs | ARM.blobs).items() if blob not in IMAGE.layers + ARM.layers
        }
        assert "not whole" in refused(tarred(layout({**parts, path(raw): raw}, entry))).message

    def test_may_have_indexes_that_list_indexes(self) -> None:
        inner = [index_of(image) for image in (IMAGE, ARM)]
        outer, entry = listing(*(described(raw, OCI_INDEX) for raw, _ in inner))
        blobs = {path(raw): raw for raw in (outer, *(raw for raw, _ in inner))}
        found = read(tarred(layout({**IMAGE.blobs, **ARM.blobs, **blobs}, entry)))
        tree = found.tree(found.entries[0].target)
        assert [str(each.platform) for each in tree.manifests] == ["linux/amd64", "linux/arm64"]
        assert set(tree.all) == found.digests

    def test_may_have_children_of_types_that_nobody_knows(self) -> None:
        artifact = as_json({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []})
        children = (
            described(IMAGE.manifest, OCI_MANIFEST),
            described(artifact, "application/vnd.oci.artifact.manifest"),
        )
        raw, entry = listing(*children)
        found = read(tarred(layout({**IMAGE.blobs, path(raw): raw, path(artifact): artifact}, entry)))
        tree = found.tree(found.entries[0].target)
        assert [str(each.platform) for each in tree.manifests] == ["linux/amd64", "None"]  # the config's counts
        assert set(tree.all) == found.digests

    def test_have_what_is_odd_told_alone(self) -> None:
        empty, nothing = listing(name="r.example/empty:1")
        sbom = {**described(b"{}", "application/x.sbom"), "annotations": {NAME: "r.example/sbom:1"}}
        old = {**described(b"{}", next(iter(SCHEMA_1))), "annotations": {NAME: "r.example/old:1"}}
        files = layout({**IMAGE.blobs, path(empty): empty, path(b"{}"): b"{}"}, nothing, sbom, old, IMAGE.entry())
        found, _ = archive.read(opened(tarred(files)), lambda _: None)
        told = [found.odd(entry) for entry in found.entries]
        for text, expected in zip(told, ("lists nothing", "x.sbom", "schema 1"), strict=False):
            assert expected in text
        assert told[3] == ""


class TestWhatDockerSaves:
    def test_gets_the_manifest_that_containerd_makes_of_it(self, packed: Callable[[bytes], bytes]) -> None:
        file = opened(packed(tarred(IMAGE.saved("app:1", "r.example/app:2"))))
        found = read_whole(file)
        target = Descriptor(DOCKER_MANIFEST, digest(IMAGE.docker_manifest), len(IMAGE.docker_manifest))
        assert found.entries == (
            archive.Entry("docker.io/library/app:1", target),
            archive.Entry("r.example/app:2", target),
        )
        assert found.tree(target).manifests[0].platform == Platform("linux", "amd64")
        given = {d: b"".join(chunks) for d, chunks in archive.blobs(file, found, found.digests)}
        assert given == {digest(b): b for b in (IMAGE.docker_manifest, IMAGE.config, *IMAGE.layers)}

    def test_may_link_one_layer_to_another(self) -> None:
        twice = Image(layers=(IMAGE.layers[0], IMAGE.layers[0], IMAGE.layers[1]))
        files = twice.saved("app:1")
        del files["layer1/layer.tar"]
        data = tarred(files, end=b"") + linked("layer1/layer.tar", "../layer0/layer.tar") + tar.END
        found = read(data)
        target = found.entries[0].target
        layers = [blob.digest for blob in found.tree(target).blobs(target)[1:]]
        assert layers == [digest(layer) for layer in twice.layers]

    def test_may_hard_link_too(self) -> None:
        files = IMAGE.saved("app:1")
        data = files.pop("layer1/layer.tar")
        hard = linked("layer1/layer.tar", "elsewhere.tar", tarfile.LNKTYPE)
        assert read(tarred({**files, "elsewhere.tar": data}, end=b"") + hard + tar.END).entries

    def test_may_have_compressed_layers_whose_content_is_checked(self) -> None:
        image = Image(packed=True)
        found = read(tarred(image.saved("app:1")))
        assert found.documents[found.entries[0].target.digest] == image.docker_manifest
        files = image.saved("app:1") | {"layer0/layer.tar": gzip.compress(b"other")}
        assert "not the one" in refused(tarred(files)).message
        files = image.saved("app:1") | {"layer0/layer.tar": image.stored[0][:-9]}
        assert "data of a layer is broken" in refused(tarred(files)).message

    def test_may_have_layers_with_zstd_which_get_the_digest_that_ctr_gives_them(self) -> None:
        image = Image(packed=True, pack=zstd.compress)
        found = read(tarred(image.saved("app:1")))
        assert found.documents[found.entries[0].target.digest] == image.docker_manifest
        assert b"tar.gzip" in image.docker_manifest
        files = image.saved("app:1") | {"layer0/layer.tar": zstd.compress(b"other")}
        assert "not the one" in refused(tarred(files)).message
        files = image.saved("app:1") | {"layer0/layer.tar": image.stored[0][:-1]}
        assert "data of a layer is broken" in refused(tarred(files)).message

    def test_may_not_have_layers_that_containerd_does_not_unpack(self) -> None:
        image = Image(packed=True, pack=lzma.compress)
        assert "compressed with xz" in refused(tarred(image.saved("app:1"))).message

    @pytest.mark.parametrize("tags", [(), ("<none>:<none>",)])
    def test_has_no_name_where_docker_has_none(self, tags: tuple[str, ...]) -> None:
        (entry,) = read(tarred(IMAGE.saved(*tags))).entries
        assert (entry.name, entry.fault) == ("", "")

    def test_may_share_a_config_which_is_parsed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        files = IMAGE.saved("app:1")
        listed = json.loads(files["manifest.json"])
        parsed = []
        monkeypatch.setattr(docker_archive, "json_object", lambda raw, _: parsed.append(raw) or json.loads(raw))
        read(tarred({**files, "manifest.json": as_json(listed * 500)}))
        assert parsed == [IMAGE.config]

    def test_is_a_layout_where_it_has_both(self) -> None:
        files = IMAGE.layout(**{NAME: FULL})
        listed = [{"Config": path(IMAGE.config), "RepoTags": ["x:1"], "Layers": [path(b) for b in IMAGE.layers]}]
        found = read(tarred({**files, "manifest.json": as_json(listed)}))
        assert [entry.name for entry in found.entries] == [FULL]
        del files["index.json"]
        found = read(tarred({**files, "manifest.json": as_json(listed)}))
        assert [entry.name for entry in found.entries] == ["docker.io/library/x:1"]

    @pytest.mark.parametrize(
        ("listed", "why"),
        [
            ({}, "not a list"),
            (["x"], "no image"),
            ([{"Config": "none.json", "Layers": []}], "not in the archive"),
            ([{"Config": "../../etc/passwd", "Layers": []}], "not in the archive"),
            ([{"Config": "layer0/layer.tar", "Layers": []}], "no JSON"),
            ([{"Config": "c.json", "Layers": "layer0/layer.tar"}], "not a list"),
            ([{"Config": "c.json", "Layers": ["layer0/layer.tar"]}], "1 layers, and its config 2"),
            ([{"Config": "c.json", "Layers": ["layer1/layer.tar", "layer0/layer.tar"]}], "not the one"),
            ([], "has no image"),
        ],
    )
    def test_is_refused_where_its_list_is_wrong(self, listed: object, why: str) -> None:
        files = {**IMAGE.saved("app:1"), "c.json": IMAGE.config, "manifest.json": as_json(listed)}
        assert why in refused(tarred(files)).message

    def test_is_refused_where_a_config_is_not_what_its_name_says(self) -> None:
        files = IMAGE.saved("app:1")
        name = next(iter(files))
        files[name] = IMAGE.config.replace(b"linux", b"plan9")
        assert "config is not what its name says" in refused(tarred(files)).message


def test_reading_takes_little_memory_whatever_a_blob_has(packed: Callable[[bytes], bytes]) -> None:
    big = Image(layers=(bytes(48 << 20), hashlib.sha256(b"").digest()))
    file = opened(packed(tarred(big.layout(**{NAME: FULL}))))
    tracemalloc.start()
    found = read_whole(file)
    for _, chunks in archive.blobs(file, found, found.digests):
        for _ in chunks:
            pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20
