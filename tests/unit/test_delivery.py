"""What mends a failed image, and what of a plan has changed: decided without hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from copies import NEEDED, Two, digest
from copies import image as listed

from ctr_ferry.ctr.ingest import Store
from ctr_ferry.delivery import plan_file
from ctr_ferry.delivery.entry import Entry, mended
from ctr_ferry.delivery.plan_file import Blob, PlannedImage
from ctr_ferry.delivery.request import DeliverRequest, Via
from ctr_ferry.delivery.results import DeliveredImage, DeliverResult
from ctr_ferry.delivery.routes import Route
from ctr_ferry.errors import ContentMissing, DiskFull, FerryError, ReferenceExists, RegistryUnreachable, UsageError
from ctr_ferry.images.item import Item
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.outcome import Status
from ctr_ferry.transfer.copy_request import ImageCopy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.plan import Plan
from tasks import deliver

NAME = "r.example/app:1"


def request(**options: Any) -> DeliverRequest:
    return deliver.parse(**{"src": "old.example/app:1", "dst": NAME, **options})


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"dst": NAME},
            {"src": "a", "ref": ["b"]},
            {"ref": ["a"], "map": "file"},
            {"src": "a*", "dst": NAME},
            {"ref": ["a", "b"], "digest": digest(1)},
            {"ref": ["a"], "digest": "1"},
            {"ref": ["a"], "via": "air"},
            {"ref": ["a"], "archive": "file", "from_": ["b"]},
        ],
    )
    def test_what_contradicts_itself_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            deliver.parse(**options)

    def test_any_host_may_be_the_source_unless_one_is_named(self) -> None:
        assert deliver.parse(ref=["a"]).sources == ("any",)
        assert deliver.parse(ref=["a"], from_=["b", "c"]).sources == ("b", "c")


class TestWhatMends:
    WORDS = f"fab -H a deliver --src old.example/app:1 --dst {NAME}"

    @pytest.mark.parametrize(
        ("options", "error", "command"),
        [
            ({}, DiskFull("full", hint="make room"), WORDS),
            ({}, ReferenceExists("taken", hint="add --force to move it"), f"{WORDS} --force"),
            ({"force": True}, ReferenceExists("taken", hint="add --force to move it"), f"{WORDS} --force"),
            ({"via": "registry"}, RegistryUnreachable("dead", hint="start it"), f"{WORDS} --via ssh"),
            ({"via": "registry"}, DiskFull("full", hint="make room"), f"{WORDS} --via registry"),
            ({"from_": ["b", "c"], "namespace": "x"}, DiskFull("full"), f"{WORDS} --from b --from c --namespace x"),
            ({"from_": ["b"]}, ContentMissing("gone", hint="take them with --from any"), f"{WORDS} --from any"),
        ],
    )
    def test_is_the_same_command_for_that_image_with_the_option_that_is_named(
        self, options: dict[str, Any], error: FerryError, command: str
    ) -> None:
        entry = Entry(DeliveredImage("old.example/app:1", NAME))
        entry.fail(error)
        entry.mend(request(**options), "a")
        assert entry.result.error and entry.error
        assert entry.result.error["hint"] == entry.error.hint
        assert entry.error.hint.endswith(command)
        assert error.hint in entry.error.hint

    def test_of_blobs_that_no_host_has_looks_for_them_and_does_not_ask_all_hosts_again(self) -> None:
        entry = Entry(DeliveredImage("old.example/app:1", NAME))
        entry.fail(ContentMissing("gone", hint="take them with --from any"))
        entry.mend(request(), "a")
        assert entry.error and "fab -H all check --ref old.example/app:1" in entry.error.hint
        assert "--from any" not in entry.error.hint

    def test_of_all_images_of_a_host_has_the_words_that_named_them(self) -> None:
        several = deliver.parse(ref=["r.example/a:1", "r.example/b:1"])
        assert mended("", several, "a") == "fab -H a deliver --ref r.example/a:1 --ref r.example/b:1"

    def test_does_not_change_the_error_of_other_hosts(self) -> None:
        shared = ReferenceExists("taken", hint="add --force")
        entry = Entry(DeliveredImage("old.example/app:1", NAME))
        entry.fail(shared)
        entry.mend(request(), "a")
        assert shared.hint == "add --force"


class TestChanges:
    """What was planned for a host that has blob 4, and lacks 1, 2 and 6 of an image."""

    planned = PlannedImage(
        source=NAME,
        reference=NAME,
        digest=digest(1),
        source_digest=digest(1),
        route=Route.SSH,
        why="",
        origin="src",
        before=None,
        held=(digest(4),),
        needed=tuple(Blob(digest(number), 10) for number in (1, 2, 6)),
        bytes=30,
    )

    def changes(self, *here: int, planned: PlannedImage = planned, existing: bool = False, **fields: Any) -> list[str]:
        item = Plan(
            result=CopiedImage(NAME, NAME, **{"digest": digest(1), "status": Status.CHANGED, **fields}),
            existing=listed(number=9) if existing else None,
            image_copy=ImageCopy(listed(), Reference.parse(NAME)),
            target=Two.top,
            needed=NEEDED,
        )
        return list(plan_file.changes_of(planned, item, Store(here=frozenset(map(digest, here)))))

    def test_of_a_host_that_is_as_it_was_are_none(self) -> None:
        assert self.changes(4) == []

    def test_that_only_bring_blobs_do_no_harm(self) -> None:
        assert self.changes(1, 4, 6) == []

    def test_are_a_name_that_somebody_gave_a_blob_that_went_and_another_image(self) -> None:
        assert self.changes(4, existing=True) == [f"the name was nothing, and is {digest(9)}"]
        assert self.changes(1) == [f"blob {digest(4)} is no longer there"]
        assert self.changes(4, digest=digest(8)) == [f"the image was {digest(1)}, and is {digest(8)}"]

    def test_do_not_concern_what_the_sources_lack_where_the_registry_gives_it(self) -> None:
        item: Item[CopiedImage] = Item(CopiedImage(NAME, NAME, digest=digest(1)), None)
        item.fail(ContentMissing("the source lacks blobs"))
        by_registry = msgspec.structs.replace(self.planned, route=Route.REGISTRY)
        assert list(plan_file.changes_of(by_registry, item, Store())) == []
        assert list(plan_file.changes_of(self.planned, item, Store())) == ["the source lacks blobs"]


def test_a_plan_survives_its_file(tmp_path: Any) -> None:
    asked = plan_file.Request(
        images=(plan_file.Wanted("old.example/app:1", NAME),),
        sources=("any",),
        archive=None,
        via=Via.AUTO,
        namespace=None,
        platform="linux/arm64",
        digest=None,
        force=True,
        words=("--src", "old.example/app:1", "--dst", NAME),
    )
    host = plan_file.PlannedHost("1.6.20", "1.6.20", "k8s.io", (TestChanges.planned,))
    besides = ("a", "k8s.io", NAME, digest(1))
    pushed = plan_file.Push(*besides, True)
    plan = plan_file.DeliveryPlan(2, asked, {"a": host}, (plan_file.Besides(*besides),), (pushed,))
    file = tmp_path / "plan.json"
    file.write_bytes(plan.to_json())
    assert plan_file.read(str(file)) == plan
    again = plan.request_for(str(file))
    assert replace(again, plan=None) == request(platform="linux/arm64", force=True)


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"version": 2}', '{"version": "1"}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Any, text: str) -> None:
    (tmp_path / "plan").write_text(text)
    with pytest.raises(UsageError, match="is no plan of deliver"):
        plan_file.read(str(tmp_path / "plan"))


def test_an_image_that_was_not_tried_has_not_been_given_its_name() -> None:
    statuses = (Status.CHANGED, Status.SKIPPED, Status.FAILED, Status.UNCHANGED)
    images = tuple(DeliveredImage("a", str(n), digest(n), status=status) for n, status in enumerate(statuses))
    result = DeliverResult(namespace="k8s.io", ctr="1.6.20", containerd="1.6.20", images=images)
    assert [name for name, *_ in result.given()] == ["0", "3"]
