"""What one host is to get is planned from what it has, and refused where it does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from copies import AMD, ARM, CTR, NEEDED, PLACE, Two, blob, digest, image, manifest

from ctr_ferry.ctr import checks
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.commands import CRI_MANAGED
from ctr_ferry.ctr.free_space import Room, Space
from ctr_ferry.ctr.ingest import Store
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import ContentMissing, DiskFull, MethodUnsupported, ReferenceExists
from ctr_ferry.images.content import Content
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import OCI_MANIFEST
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.outcome import Status
from ctr_ferry.ssh.target import Target
from ctr_ferry.transfer.copy_request import CopyOptions, CopyRequest, ImageCopy, blobs_to_copy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.destination import Destination
from ctr_ferry.transfer.plan import Plan


class TestBlobsToCopy:
    def numbers(self, content: Content, **options: Any) -> list[int]:
        found = blobs_to_copy(content, image(), Two.top, **{"platform": AMD, "every": False, **options})
        return [int(each.digest[7:], 16) for each in found]

    def test_all_platforms_that_are_whole_come_and_of_the_others_the_manifest(self) -> None:
        assert self.numbers(Two.content(1, 2, 3, 4, 5, 6, 7)) == [1, 2, 3, 4, 6, 5, 7]
        assert self.numbers(Two.content(1, 2, 3, 4, 5, 6)) == [1, 2, 3, 4, 6]
        assert self.numbers(Two.content(1, 2, 4, 6)) == [1, 2, 4, 6]

    def test_the_hosts_own_platform_must_be_whole(self) -> None:
        with pytest.raises(ContentMissing) as raised:
            self.numbers(Two.content(1, 2, 3, 4, 5, 7))
        assert raised.value.detail == digest(6)
        assert self.numbers(Two.content(1, 2, 3, 4, 5, 7), platform=ARM) == [1, 2, 3, 5, 7]

    def test_all_platforms_must_be_whole_where_that_is_asked(self) -> None:
        with pytest.raises(ContentMissing) as raised:
            self.numbers(Two.content(1, 2, 4, 6), every=True)
        assert raised.value.detail.splitlines() == [digest(3), digest(5), digest(7)]

    def test_one_manifest_comes_with_its_blobs(self) -> None:
        found = blobs_to_copy(Two.content(1, 2, 4, 6), image(), Two.amd, AMD, every=False)
        assert [each.digest for each in found] == [digest(2), digest(4), digest(6)]


NAME = "r.example/app:1"
COMPLETE = Check(complete=True, unpacked=True, status="complete")


def destination(
    *listed: Image, here: Iterable[int] = (), check: Check = COMPLETE, server: str = "1.7.24"
) -> Destination:
    """A host of amd64 that has some blobs of an image whose source has it whole."""
    facts = SimpleNamespace(ctr=CTR, platform=AMD, client="1.6.20", server=server)
    host = SimpleNamespace(target=Target("n", "n"))
    session = SimpleNamespace(host=host, facts=facts, there=Listing("k8s.io", listed), place=PLACE)
    return Destination(
        copy_request=CopyRequest((ImageCopy(image(), Reference.parse(NAME)),), Content()),
        session=cast(Session, session),
        store=Store(here=frozenset(map(digest, here))),
        content=Two.content(*range(1, 8)),
        checks={NAME: check},
    )


class TestDecision:
    def plan(self, found: Destination, **options: Any) -> Any:
        request = replace(found.copy_request, options=CopyOptions(**options))
        (one,) = replace(found, copy_request=request).plan_images()
        return one

    def test_an_image_that_is_not_there_is_copied_with_the_blobs_that_are_missing(self) -> None:
        one = self.plan(destination(here=[4, 6]))
        assert one.ready and one.result.method == "blobs"
        assert (one.result.blobs, one.result.blobs_there) == (5, 2)

    def test_an_image_that_is_whole_unpacked_and_known_to_cri_is_unchanged(self) -> None:
        known = replace(image(), labels=frozenset({CRI_MANAGED}))
        one = self.plan(destination(known, here=range(1, 8)))
        assert (one.result.status, one.result.notes) == (Status.UNCHANGED, ("it is there already",))

    def test_an_image_that_cri_does_not_know_gets_its_name_again(self) -> None:
        assert self.plan(destination(image(), here=range(1, 8))).ready

    def test_no_more_than_the_hosts_own_platform_comes_where_that_is_asked(self) -> None:
        one = self.plan(destination(here=[4, 6]), own=True)
        assert [int(blob.digest[7:], 16) for blob in one.needed.blobs] == [1, 2, 4, 6]
        known = replace(image(), labels=frozenset({CRI_MANAGED}))
        assert not self.plan(destination(known, here=[1, 2, 4, 6]), own=True).pending
        assert self.plan(destination(known, here=[1, 2, 4, 6])).pending

    def test_an_artifact_stays_where_it_is_and_comes_to_no_ctr_that_must_unpack_it(self) -> None:
        chart = replace(image(media_type=OCI_MANIFEST), platforms="-", labels=frozenset({CRI_MANAGED}))
        document = manifest(blob(4), blob(6), config="application/vnd.cncf.helm.config.v1+json")
        old = Capabilities.of_version(cast(Version, Version.parse("1.2.6")))
        for able, there in ((CTR.capabilities, True), (CTR.capabilities, False), (old, True), (old, False)):
            unpacked = Check(complete=True, unpacked=False, status="complete")
            found = destination(*[chart][:there], here=[1, 4, 6], check=unpacked)
            found.session.facts.ctr = replace(CTR, capabilities=able)
            request = CopyRequest((ImageCopy(chart, Reference.parse(NAME)),), Content())
            content = Content(frozenset(map(digest, (1, 4, 6))), {digest(1): document})
            one = self.plan(replace(found, copy_request=request, content=content))
            assert one.pending is (able is not old and not there)
            assert isinstance(one.error, MethodUnsupported) is (able is old and not there)

    @pytest.mark.parametrize(
        ("here", "check"),
        [
            (range(1, 7), COMPLETE),
            (range(1, 8), checks.UNKNOWN),
            (range(1, 8), Check(complete=True, unpacked=False, status="complete")),
        ],
    )
    def test_an_image_that_is_not_whole_or_not_unpacked_is_done_again(self, here: Iterable[int], check: Check) -> None:
        assert self.plan(destination(image(), here=here, check=check)).ready

    def test_a_name_of_another_image_is_moved_only_by_force(self) -> None:
        taken = destination(image(number=9))
        assert isinstance(self.plan(taken).error, ReferenceExists)
        assert self.plan(taken, force=True).result.previous_digest == digest(9)

    @pytest.mark.parametrize(("server", "refused"), [("1.6.20", True), ("1.7.0", False), ("unknown", True)])
    def test_a_pin_is_refused_where_cri_does_not_heed_it(self, server: str, refused: bool) -> None:
        assert isinstance(self.plan(destination(server=server), pin=True).error, MethodUnsupported) is refused

    def test_what_could_not_be_named_is_tried_once_more_even_for_want_of_content(self) -> None:
        """A blob that has vanished meanwhile is sent again; one that no source has is not asked for again."""
        named, fetched = self.plan(destination()), self.plan(destination())
        named.not_named(ContentMissing("vanished"))
        fetched.stop(ContentMissing("nobody has it"))
        assert (bool(named.again), named.error) == (True, None)
        assert (fetched.again, bool(fetched.error)) == (None, True)

    def test_what_several_images_need_counts_for_the_first(self) -> None:
        copies = tuple(ImageCopy(image(), Reference.parse(name)) for name in (NAME, "r.example/app:2"))
        first, second = replace(destination(), copy_request=CopyRequest(copies, Content())).plan_images()
        assert (first.result.blobs, second.result.blobs, second.result.blobs_there) == (7, 0, 7)
        assert (first.result.method, second.result.method) == ("blobs", "index")


class TestRoom:
    """What is reported where all that comes does not, or may not, fit."""

    @pytest.fixture(autouse=True)
    def growth(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Destination, "_growth", lambda _, todo: 30 if todo else 0)

    def notices(self, free: int, *plans: Plan, dry_run: bool = False) -> tuple[str, ...]:
        space = Space(1000, free, free, "/")
        return replace(destination(), room=Room(space, space)).check_room(plans, dry_run=dry_run)

    def plan(self, size: int) -> Plan:
        report = CopiedImage("a", "a", digest(1), digest(1), status=Status.CHANGED, bytes=size)
        return Plan(
            result=report,
            existing=None,
            image_copy=ImageCopy(image(), Reference.parse("r.example/app:1")),
            target=Two.amd,
            needed=NEEDED,
        )

    def test_all_that_is_to_be_sent_is_refused_where_it_does_not_fit_together(self) -> None:
        plans = [self.plan(60), self.plan(60), self.plan(0)]
        assert self.notices(100, *plans) == ()
        assert [type(each.error) for each in plans] == [DiskFull, DiskFull, type(None)]
        assert "120 B are needed, and 100 B are free on /" in str(plans[0].error)

    @pytest.mark.parametrize(("free", "notices"), [(149, 1), (150, 0)])
    def test_what_may_not_fit_unpacked_is_reported(self, free: int, notices: int) -> None:
        one = self.plan(120)
        assert len(self.notices(free, one)) == notices and one.error is None

    def test_a_dry_run_reports_what_is_needed_and_free(self) -> None:
        assert self.notices(150, self.plan(120), dry_run=True) == (
            "120 B, and about 30 B more when unpacked are needed, and 150 B are free on /",
        )
        assert self.notices(150, dry_run=True) == ()

    def test_a_dry_run_of_names_alone_tells_of_no_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Destination, "_growth", lambda *_: 0)
        assert self.notices(1000, self.plan(0), dry_run=True) == ()
