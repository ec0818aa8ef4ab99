"""What is read by a digest is what the digest says, or an error that names who has it; never an empty manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from two_platforms import ALL, AMD, AMD64, ARM64, BLOBS, IMAGE, INDEX, NAME, digest, listed

from ctr_ferry.ctr.commands import MOST_DOCUMENT, Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import (
    CommandFailed,
    ContentCorrupt,
    ContentMissing,
    DaemonUnreachable,
    FerryError,
)
from ctr_ferry.images.content import Content
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Registry
from ctr_ferry.registry.access import RegistryAccess
from ctr_ferry.registry.push_pull import RegistryTransfer
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer import archive_writer
from ctr_ferry.transfer.copy_request import CopyOptions
from ctr_ferry.transfer.source_inventory import ImageSelector, SourceInventory, parts, source_of

CTR = Ctr(("ctr",), "/run/c.sock", Capabilities.of_version(cast(Version, Version.parse("1.6.20"))))
FACTS = cast(Facts, SimpleNamespace(ctr=CTR, platform=AMD))
DOWN = 'ctr: failed to dial "/run/c.sock": dial unix /run/c.sock: connect: connection refused\n'


@dataclass
class Store:
    """A host that gives what it has, but some of it wrongly."""

    has: Mapping[str, bytes] = field(default_factory=lambda: dict(ALL))
    wrong: Mapping[str, Answer] = field(default_factory=dict)
    listing: Answer | None = None
    name: str = "node7"
    target: Any = field(default_factory=lambda: SimpleNamespace(limits=SimpleNamespace(probe=1)))
    asked: int = 0
    run_id: str = "20260101T000000Z-abcd"

    def facts(self, namespaces: Sequence[str]) -> Any:
        listings = {name: Listing(name, ()) for name in namespaces}
        return SimpleNamespace(**vars(FACTS), listings=listings, content_root="/root", cri=False)

    def ask(self, script: Script, **_: object) -> dict[str, Answer]:
        self.asked += 1
        return {name: self._answer(text) for name, text in script.steps.items()}

    def _answer(self, text: str) -> Answer:
        if " get " not in text:
            return self.listing or Answer(0, "\n".join(self.has).encode(), "")
        wanted = next(word for word in text.split() if word.startswith("sha256:"))
        if wanted in self.wrong:
            return self.wrong[wanted]
        known = wanted in self.has  # the exit status is that of `head`
        return Answer(0, self.has.get(wanted, b""), "" if known else f"ctr: content digest {wanted}: not found\n")


def read(store: Store, *, deep: bool = True) -> Content:
    return Session(cast(Host, store), "k8s.io").read([IMAGE.digest], deep=deep)[0]


def save(store: Store, wanted: Platform | None = None, *, every: bool = False) -> archive_writer.Plan:
    return archive_writer.plan([IMAGE], read(store), AMD, wanted, every=every)


WRONG: list[tuple[str, Callable[[bytes], Answer], type[FerryError], str]] = [
    ("nothing", lambda _: Answer(0, b"", "ctr: content digest: not found\n"), ContentMissing, "not found"),
    ("nothing, and no word", lambda _: Answer(0, b"", ""), ContentMissing, "no reason"),
    (
        "the half, and why",
        lambda d: Answer(0, d[:9], "ctr: read: input/output error\n"),
        ContentMissing,
        "input/output",
    ),
    ("a failure", lambda d: Answer(137, d[:9], ""), ContentMissing, "no reason"),
    ("the half", lambda d: Answer(0, d[:9], 'level=warning msg="DEPRECATION"\n'), ContentCorrupt, "9 bytes"),
    ("another byte", lambda d: Answer(0, d.replace(b'"', b' "', 1), ""), ContentCorrupt, "sha256:"),
    ("another manifest", lambda _: Answer(0, AMD64, ""), ContentCorrupt, digest(AMD64)),
    ("too much", lambda d: Answer(0, d.ljust(MOST_DOCUMENT + 1), ""), ContentCorrupt, "more than 4194304"),
    ("no containerd", lambda _: Answer(0, b"", DOWN), DaemonUnreachable, "refused"),
]


@pytest.mark.parametrize(("gives", "kind", "detail"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
@pytest.mark.parametrize("every", [True, False])
def test_an_archive_is_never_written_without_a_platform_whose_manifest_cannot_be_read(
    gives: Callable[[bytes], Answer], kind: type[FerryError], detail: str, every: bool
) -> None:
    store = Store(wrong={digest(ARM64): gives(ARM64)})
    with pytest.raises(kind) as raised:
        save(store, every=every)
    assert detail in raised.value.detail
    if kind is not DaemonUnreachable:
        assert digest(ARM64) in raised.value.message and "node7" in raised.value.message
    assert {blob.digest for blob in save(store, AMD).blobs} == {digest(data) for data in (AMD64, *BLOBS[:2])}


@pytest.mark.parametrize(("gives", "kind"), [(w[1], w[2]) for w in WRONG], ids=[w[0] for w in WRONG])
def test_nothing_is_made_of_an_image_whose_own_manifest_cannot_be_read(
    gives: Callable[[bytes], Answer], kind: type[FerryError]
) -> None:
    content = read(Store(wrong={IMAGE.digest: gives(INDEX)}))
    for act in (
        lambda: content.choose(IMAGE, None, AMD, partial_index=True),
        lambda: content.below(Descriptor(OCI_INDEX, IMAGE.digest, 0)),
        lambda: content.needed(Descriptor(OCI_INDEX, IMAGE.digest, 0), AMD),
        lambda: content.blobs_to_copy(Descriptor(OCI_INDEX, IMAGE.digest, 0)),
    ):
        with pytest.raises(kind):
            act()


def test_a_manifest_that_is_not_there_is_absent_and_no_error() -> None:
    store = Store({d: data for d, data in ALL.items() if data not in (ARM64, *BLOBS[2:])})
    assert read(store).bad == {}
    assert save(store).images[0].platforms == ("linux/amd64",)
    with pytest.raises(ContentMissing) as raised:
        save(store, every=True)
    assert raised.value.detail == digest(ARM64)


def test_an_image_whose_manifest_is_not_there_has_not_all_of_its_content() -> None:
    content = read(Store({}))
    assert content.bad == {}
    with pytest.raises(ContentMissing, match="named on this host"):
        content.choose(IMAGE, None, AMD, partial_index=True)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'"x"', b"[" * 100_000, b'{"manifests": 5}', b'{"config": 1}'])
def test_what_cannot_be_parsed_is_no_manifest(raw: bytes) -> None:
    content = Content()
    content.take(digest(raw), Answer(0, raw, ""), "node7")
    with pytest.raises((ContentCorrupt, ContentMissing), match="node7"):
        content.below(Descriptor(OCI_INDEX, digest(raw), 0))


def test_what_is_said_to_be_an_index_must_be_one() -> None:
    for kind, data in ((OCI_INDEX, AMD64), (OCI_MANIFEST, INDEX)):
        content = Content(frozenset(ALL), {digest(data): data})
        with pytest.raises(ContentCorrupt, match="something else"):
            content.choose(Image(NAME, kind, digest(data), "", "-", frozenset()), None, AMD, partial_index=True)


def test_a_listing_that_failed_is_no_empty_namespace() -> None:
    for detail, kind in ((DOWN, DaemonUnreachable), ("ctr: odd\n", CommandFailed)):
        with pytest.raises(kind):
            read(Store(listing=Answer(1, b"", detail)))


def test_what_an_index_lists_besides_manifests_is_a_blob_like_a_layer() -> None:
    index = json.dumps({"manifests": [listed(OCI_MANIFEST, AMD64, AMD), listed("application/x", b"note")]}).encode()
    image = Image(NAME, OCI_INDEX, digest(index), "", "linux/amd64", frozenset())
    store = Store({digest(data): data for data in (index, AMD64, *BLOBS, b"note")})
    content = Session(cast(Host, store), "k8s.io").read([image.digest], deep=True)[0]
    assert digest(b"note") in {blob.digest for blob in archive_writer.plan([image], content, AMD, every=True).blobs}


class TestSeveralSources:
    SELECTOR = ImageSelector(NAME)

    def source_inventory(self, name: str, **wrong: Any) -> SourceInventory:
        store = Store(name=name, wrong={digest(ARM64): wrong["arm"]} if wrong else {})
        session = Session(cast(Host, store), "k8s.io")
        return SourceInventory(session, read(store), {self.SELECTOR: (IMAGE,)})

    def test_what_one_of_them_has_in_order_is_in_order(self) -> None:
        half, whole = self.source_inventory("half", arm=Answer(0, b"x", "")), self.source_inventory("whole")
        for source_inventories in ([half, whole], [whole, half]):
            merged = Content.merged(source_inventory.content for source_inventory in source_inventories)
            assert merged.bad == {} and merged.manifest(digest(ARM64)) == Manifest.parse(ARM64)

    def test_one_that_cannot_read_a_manifest_has_not_all(self) -> None:
        half, whole = self.source_inventory("half", arm=Answer(0, b"x", "")), self.source_inventory("whole")
        (every,) = parts(whole.content, [IMAGE], CopyOptions(every=True))
        assert not half.has(every) and whole.has(every)
        assert list(map(half.has, parts(whole.content, [IMAGE], CopyOptions()))) == [True, False]

    def test_one_image_that_cannot_be_read_leaves_the_others_their_sources(self) -> None:
        bad = self.source_inventory("a", arm=Answer(0, b"x", ""))
        source = source_of([bad, self.source_inventory("b")])
        assert source.name == "a, b"
        assert source.holder(Descriptor("", digest(BLOBS[0]), 0)) == "a"


@pytest.mark.parametrize(("arm", "size"), [(ARM64, sum(map(len, BLOBS))), (AMD64, None), (b"", None), (b"{}", None)])
def test_a_registrys_manifest_counts_only_where_it_is_what_its_digest_says(arm: bytes, size: int | None) -> None:
    bodies = {"1": INDEX, digest(AMD64): AMD64, digest(ARM64): arm}
    transfer = RegistryTransfer.__new__(RegistryTransfer)
    transfer.reference = Reference.parse(NAME)
    client = SimpleNamespace(read=lambda _, reference: bodies[reference])
    access = SimpleNamespace(registry=Registry("r.example"), client=client, connection=lambda: nullcontext(client))
    transfer.access = cast(RegistryAccess, access)

    def total(platform: Platform | None) -> int | None:
        blobs = transfer.contents(platform)
        return None if blobs is None else sum(blob.size for blob in blobs)

    assert total(None) == size
    assert total(AMD) == sum(map(len, BLOBS[:2]))
