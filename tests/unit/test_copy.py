"""`copy` finds out which images are meant, from which hosts, and which names they get."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from copies import AMD, Two, digest, image

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import (
    BadReference,
    Drift,
    FerryError,
    ImageNotFound,
    MethodUnsupported,
    SourceLost,
    Unreachable,
    UsageError,
)
from ctr_ferry.images.content import Content
from ctr_ferry.images.item import ImageResult, refuse_wrong_digest
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import OCI_MANIFEST
from ctr_ferry.oci.reference import Reference
from ctr_ferry.transfer import source_inventory as sources
from ctr_ferry.transfer.source_inventory import ImageSelector, SourceInventory, SourceRequest
from tasks import copy


class TestOptions:
    def test_the_namespace_is_that_of_both_ends_unless_another_is_given(self) -> None:
        both = copy.parse(from_=["a"], ref=["x"], namespace="here")
        apart = copy.parse(from_=["a"], ref=["x"], namespace="here", to_namespace="there")
        assert (both.namespace, both.options.namespace) == ("here", "here")
        assert (apart.namespace, apart.options.namespace) == ("here", "there")

    @pytest.mark.parametrize(
        "options",
        [
            {"ref": ["x"]},
            {"from_": ["a"]},
            {"from_": ["a"], "ref": ["x"], "map": "file"},
            {"from_": ["a"], "ref": ["x", "y"], "as_": "z:1"},
            {"from_": ["a"], "ref": ["x*"], "as_": "z:1"},
            {"from_": ["a"], "ref": ["x"], "platform": "linux/arm64", "all_platforms": True},
            {"from_": ["a"], "ref": ["x"], "namespace": "a/b"},
        ],
    )
    def test_what_contradicts_itself_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            copy.parse(**options)

    def test_a_word_that_is_no_reference_is_refused(self) -> None:
        with pytest.raises(BadReference):
            copy.parse(from_=["a"], ref=["not a name"])


class TestNames:
    @pytest.mark.parametrize(
        ("selector", "name", "expected"),
        [
            (ImageSelector("app:1"), "r.example/app:1", "r.example/app:1"),
            (ImageSelector("busybox"), "busybox:1", "docker.io/library/busybox:1"),
            (ImageSelector("app:1", Reference.parse("new.example/b:2")), "r.example/app:1", "new.example/b:2"),
            (ImageSelector("app:1", Reference.parse("new.example/b")), "r.example/app:7", "new.example/b:7"),
            (ImageSelector(digest(1), Reference.parse("new.example/b")), digest(9), "new.example/b:latest"),
            (ImageSelector("app:1", Reference.parse(f"r.example/b@{digest(1)}")), "app:1", f"r.example/b@{digest(1)}"),
        ],
    )
    def test_an_image_keeps_its_name_or_gets_the_one_asked_for(
        self, selector: ImageSelector, name: str, expected: str
    ) -> None:
        (image_copy,) = sources._image_copies({selector: [image(name)]})
        assert str(image_copy.dst) == expected

    @pytest.mark.parametrize("name", [digest(5), "Not A Name"])
    def test_an_image_without_a_name_needs_one(self, name: str) -> None:
        with pytest.raises(UsageError, match="no name that can be given"):
            list(sources._image_copies({ImageSelector("x"): [image(name)]}))

    def test_two_images_under_one_name_are_refused_and_one_under_two_selectors_is_not(self) -> None:
        with pytest.raises(UsageError, match="two images"):
            list(sources._image_copies({ImageSelector("a"): [image()], ImageSelector("b"): [image(number=2)]}))
        assert len(list(sources._image_copies({ImageSelector("a"): [image()], ImageSelector("b"): [image()]}))) == 1


class Named:
    """As much of a host as an error needs."""

    def __init__(self, name: str) -> None:
        self.name = name


def source_inventory(
    name: str, selector: ImageSelector, *images: Image, content: Content | None = None, ctr: str = "1.6.20"
) -> SourceInventory:
    version = cast(Version, Version.parse(ctr))
    facts = SimpleNamespace(platform=AMD, ctr=Ctr(("ctr",), "/x.sock", Capabilities.of_version(version)))
    found = {selector: images} if images else {}
    session = SimpleNamespace(host=Named(name), facts=facts, here=Listing("k8s.io", images), passed_by=lambda _: "")
    return SourceInventory(cast(Session, session), content or Content(), found)


class TestWhoHasIt:
    request = copy.parse(from_=["any"], ref=["r.example/*"])
    selector = ImageSelector("r.example/*")

    def test_the_first_source_named_decides(self) -> None:
        request = copy.parse(from_=["a", "b"], ref=["r.example/*"])
        source_inventories = [
            source_inventory("a", self.selector, image(number=1)),
            source_inventory("b", self.selector, image(number=2), image("r.example/b:1")),
        ]
        found = sources._resolve(self.selector, source_inventories, request)
        assert [(each.name, each.digest) for each in found] == [
            ("r.example/app:1", digest(1)),
            ("r.example/b:1", digest(1)),
        ]

    def test_where_any_will_do_they_must_agree(self) -> None:
        source_inventories = [
            source_inventory("a", self.selector, image(number=1)),
            source_inventory("b", self.selector, image(number=2)),
        ]
        with pytest.raises(Drift) as raised:
            sources._resolve(self.selector, source_inventories, self.request)
        assert raised.value.detail.splitlines() == [f"a {digest(1)}", f"b {digest(2)}"]

    def test_one_platforms_manifest_of_the_index_that_others_have_is_the_same_image(self) -> None:
        part, whole = image(number=2, media_type=OCI_MANIFEST), image()
        source_inventories = [
            source_inventory("old", self.selector, part, ctr="1.2.6"),
            source_inventory("new", self.selector, whole, content=Two.content(1, 2)),
        ]
        assert sources._resolve(self.selector, source_inventories, self.request) == (whole,)

    def test_a_manifest_that_an_index_of_one_host_lists_is_another_image_where_ctr_could_name_the_index(self) -> None:
        good, wrong = image(number=2, media_type=OCI_MANIFEST), image()
        source_inventories = [
            source_inventory("a", self.selector, good),
            source_inventory("b", self.selector, good),
            source_inventory("bad", self.selector, wrong, content=Two.content(1, 2, 3)),
        ]
        with pytest.raises(Drift):
            sources._resolve(self.selector, source_inventories, self.request)

    def test_what_nobody_has_is_reported_with_who_could_not_be_asked(self) -> None:
        having = [source_inventory("a", self.selector)]
        (error,) = sources._not_found(
            SourceRequest(("any",), (self.selector,)), having, {"b": Unreachable("no connection")}
        ).values()
        assert isinstance(error, ImageNotFound)
        assert "a" in error.message and "b: no connection" in error.detail

    def test_all_images_that_nobody_has_are_told_at_once(self) -> None:
        first, *others = map(ImageSelector, ("r.example/a:1", "r.example/b:1", "r.example/c:1"))
        having = [source_inventory(name, first, image("r.example/a:1")) for name in "ab"]
        missing = sources._not_found(SourceRequest(("any",), (first, *others)), having, {})
        assert list(missing) == others
        error = sources._of_all(list(missing.values()), 3)
        assert isinstance(error, ImageNotFound) and error.message.startswith("2 of 3 images")
        assert [line.split()[5] for line in error.detail.splitlines()] == ["r.example/b:1", "r.example/c:1"]

    @pytest.mark.parametrize("tag", ["", ":1"])
    def test_what_is_asked_for_by_digest_gets_that_name(self, tag: str) -> None:
        selector = ImageSelector(f"r.example/app{tag}@{digest(1)}")
        for name in ("r.example/app:1", "other.example/app:2", f"r.example/app@{digest(1)}"):
            assert str(sources._name(selector, image(name))) == f"r.example/app@{digest(1)}"
        glob = ImageSelector("r.example/*")
        assert str(sources._name(glob, image(f"r.example/app{tag}@{digest(1)}"))) == f"r.example/app@{digest(1)}"

    def test_any_takes_the_one_that_has_it_whole_and_else_all(self) -> None:
        half = source_inventory("half", self.selector, image(), content=Two.content(1, 2, 4))
        whole = source_inventory("whole", self.selector, image(), content=Two.content(1, 2, 4, 6))
        assert [s.name for s in sources.chosen([half, whole], [image()], self.request)] == ["whole"]
        assert [s.name for s in sources.chosen([half, half], [image()], self.request)] == ["half", "half"]

    @pytest.mark.parametrize(
        ("hosts", "words", "expected"),
        [
            ({"amd": (1, 2, 4, 6), "arm": (1, 3, 5, 7)}, {}, ["amd", "arm"]),
            ({"amd": (1, 2, 4, 6), "more": (1, 2, 3, 4, 6), "arm": (1, 3, 5, 7)}, {}, ["amd", "arm"]),
            ({"amd": (1, 2, 4, 6), "arm": (1, 3, 5, 7), "both": range(1, 8)}, {}, ["both"]),
            ({"amd": (1, 2, 4, 6), "arm": (1, 3, 5, 7)}, {"platform": "linux/arm64"}, ["arm"]),
            ({"amd": (1, 2, 4, 6), "both": range(1, 8)}, {"all_platforms": True}, ["both"]),
            ({"amd": (1, 2, 4, 6), "empty": (), "arm": (1, 3, 5, 7)}, {"all_platforms": True}, ["amd", "empty", "arm"]),
            ({"amd": (1, 2, 4, 6), "half": (1, 3, 5), "rest": (7,)}, {}, ["amd", "half", "rest"]),
            ({"none": (1,), "nothing": ()}, {}, ["none", "nothing"]),
        ],
    )
    def test_any_takes_for_each_platform_a_host_that_has_it_whole_and_else_all(
        self, hosts: dict[str, Any], words: dict[str, Any], expected: list[str]
    ) -> None:
        request = copy.parse(from_=["any"], ref=["r.example/*"], **words)
        having = [
            source_inventory(name, self.selector, image(), content=Two.content(*has)) for name, has in hosts.items()
        ]
        assert [source.name for source in sources.chosen(having, [image()], request)] == expected

    def test_a_source_that_is_unreachable_is_no_unreachable_destination(self) -> None:
        error = sources._of_source("a", Unreachable("no connection", detail="refused", hint="look"))
        assert isinstance(error, SourceLost)
        assert (error.message, error.detail, error.hint) == ("the source a: no connection", "refused", "look")


def test_a_set_of_images_is_copied_under_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("r.example/b:1\nbusybox\n")
    request = copy.parse(from_=["a"], ref=["r.example/a:1"], set_=[str(tmp_path / "set")])
    assert [selector.ref for selector in request.selectors] == ["r.example/a:1", "r.example/b:1", "busybox"]
    with pytest.raises(UsageError, match="--as is for one image"):
        copy.parse(from_=["a"], set_=[str(tmp_path / "set")], as_="r.example/c:1")


@pytest.mark.parametrize(
    ("version", "has", "why"),
    [
        ("1.1.8", (1, 1), "up to 1.1 a name has a tag"),
        ("1.2.6", (2, 1), "would get one platform's manifest"),
        ("1.2.6", (1, 2), ""),
        ("1.2.6", (1, 1), ""),
        ("1.7.0", (2, 2), "another digest than its new name says"),
    ],
)
def test_a_name_by_digest_means_what_it_says(version: str, has: tuple[int, int], why: str) -> None:
    parsed = Version.parse(version)
    assert parsed
    ctr = Ctr(("ctr",), "/x.sock", Capabilities.of_version(parsed))
    facts = cast(Any, SimpleNamespace(client=version, ctr=ctr))
    result = ImageResult("a:1", "", digest=digest(has[0]), source_digest=digest(has[1]))
    refuse_wrong_digest(Reference.parse("r.example/app:1"), result, facts)
    name = Reference.parse(f"r.example/app@{digest(1)}")
    expected = pytest.raises((MethodUnsupported, Drift), match=why) if why else nullcontext()
    with expected:
        refuse_wrong_digest(name, result, facts)


def test_requests_are_values() -> None:
    assert copy.parse(from_=["a"], ref=["x"]) == SourceRequest(("a",), (ImageSelector("x"),))
    assert issubclass(SourceLost, FerryError)
