"""What ``copy`` and ``load`` share: images whose blobs come from a source, delivered to many hosts at once.

On each host: look what is there, take in what is missing and hold it, name it, and look again.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ctr_ferry.ctr import checks, free_space, ingest, naming
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.commands import PINNED
from ctr_ferry.ctr.failures import failure, required
from ctr_ferry.ctr.free_space import Room
from ctr_ferry.ctr.ingest import Load, Store
from ctr_ferry.ctr.listing import Image, Listing, parse_digests
from ctr_ferry.ctr.naming import Method, Naming, Place
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.verdict import exists, judge, numbers, tell_moved, unproved
from ctr_ferry.ctr.version import Version
from ctr_ferry.errors import (
    ContentCorrupt,
    ContentMissing,
    DiskFull,
    FerryError,
    HostError,
    MethodUnsupported,
    SomeFailed,
    SourceLost,
    VerifyFailed,
)
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.roll_back import remove_names
from ctr_ferry.oci.descriptor import INDEXES, MANIFESTS, Descriptor
from ctr_ferry.report.outcome import Result, Status
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy_request import CopyRequest, Delivered, DeliveryResult, ImageCopy, blobs_to_copy
from ctr_ferry.transfer.fan_out import FanOut, Source

_FINAL = (ContentCorrupt, ContentMissing, SourceLost)  # errors that another attempt does not mend
_DAY = 86400  # seconds that a host holds what arrived, at most
_STEP = 1 << 20  # bytes between two words about progress
_KUBELETS = "k8s.io"


def deliver(fleet: Fleet, copy_request: CopyRequest, source: Source) -> dict[str, Result | FerryError]:
    """Delivers to every host of the fleet, in batches that are served together.

    Returns:
        By host a DeliveryResult, or why there is none.
    """
    return dict(fleet.together(lambda hosts: _Batch(hosts, copy_request, source)))


class _Batch:
    """Hosts that are served together; what `Fleet.together` wants."""

    def __init__(self, hosts: Sequence[str], copy_request: CopyRequest, source: Source) -> None:
        self._copy_request, self._source = copy_request, source
        self._fan_out = FanOut(hosts, source)

    def work(self, host: Host) -> Result:
        """All that is done on one host."""
        return Job(host, self._copy_request, self._source, self._fan_out).run()

    def gone(self, host: str) -> None:
        """Nobody waits for this one any more."""
        self._fan_out.gone(host)


@dataclass(slots=True)
class Plan:
    """One image on one host.

    Attributes:
        load: all that must be there; None until it is known.
        again: why it is to be tried once more.
        done: whether it is named and was verified.
    """

    report: Delivered
    image_copy: ImageCopy
    existing: Image | None
    target: Descriptor | None = None
    load: Load | None = None
    error: FerryError | None = None
    again: FerryError | None = None
    done: bool = False

    @property
    def open(self) -> bool:
        """Whether there is something to do, and nothing against it so far."""
        return self.error is None and self.report.status is Status.CHANGED

    @property
    def ready(self) -> bool:
        """Whether nothing has gone wrong with it so far."""
        return self.open and not self.again

    def stop(self, error: FerryError) -> None:
        """It goes no further now; what may pass is tried once more."""
        if isinstance(error, _FINAL):
            self.fail(error)
        else:
            self.again = error

    def noted(self, note: str) -> None:
        """Says more of it."""
        self.report.note = "; ".join(filter(None, (self.report.note, note)))

    def unchanged(self, note: str) -> None:
        """Nothing is to be done."""
        self.report.status, self.report.method, self.report.note = Status.UNCHANGED, "", note
        self.report.previous_digest = ""

    def fail(self, error: FerryError) -> None:
        """It cannot be, or was not, done."""
        self.error, self.again = error, None
        self.report.status, self.report.error = Status.FAILED, error.to_json()


class Job:
    """One host's part: from the first look to the last."""

    def __init__(self, host: Host, copy_request: CopyRequest, source: Source, fan_out: FanOut) -> None:
        self.host, self.copy_request, self.source, self.fan_out = host, copy_request, source, fan_out
        self.namespace = inspect.namespace(host, copy_request.namespace)
        self.store, self.content = Store(), copy_request.content
        self.token = secrets.token_hex(2)  # one machine may be several hosts of a run
        self.room: Room | None = None
        self.notices: tuple[str, ...] = ()
        self.sent = self.total = 0
        self.seconds = 0.0
        self.attempts, self.looks = itertools.count(), itertools.count(1)
        self._counting = threading.Lock()

    def run(self) -> DeliveryResult:
        """Plans, brings what is missing, names, verifies; what vanished meanwhile is brought once more.

        Raises:
            FerryError: the one image's own error, or SomeFailed with the result.
        """
        checked = self._look()
        plans = [self._plan(image_copy, checked) for image_copy in self.copy_request.image_copies]
        self._account(plans)
        self._make_sure_it_fits([plan for plan in plans if plan.open])
        todo = [plan for plan in plans if plan.open]
        if todo and not self.host.dry_run:
            self._bring(todo)
            for plan in todo:
                if plan.again:
                    plan.fail(plan.again)
        return self._result(plans)

    def _look(self) -> dict[str, Check]:
        """One remote command."""
        names = [str(image_copy.dst) for image_copy in self.copy_request.image_copies]
        questions = ingest.questions(self.host.target.variables_of(Settings), self.namespace, names)
        facts, answers = inspect.survey(self.host, (self.namespace,), questions)
        if isinstance(facts, HostError):
            raise facts
        self.facts: Facts = facts
        self.here: Listing = facts.listings[self.namespace]
        store, active = (required(answers[step], step).text for step in ("store", "active"))
        self.store = ingest.parse_store(store, active, self.namespace, datetime.now(UTC))
        self.room = free_space.parse(answers["room"].text)
        self.place = Place(
            facts.ctr,
            namespace=self.namespace,
            from_namespace=self.namespace,
            content_root=facts.content_root,
            owner=f"ctr-ferry.{self.host.run_id}.{self.token}.{next(self.looks)}",
            cri_managed=self.namespace == _KUBELETS and facts.cri,
        )
        self.content = self._known()
        return checks.parse_checks(answers["check"].text)

    def _plan(self, image_copy: ImageCopy, checked: dict[str, Check]) -> Plan:
        image, dst = image_copy.image, str(image_copy.dst)
        report = Delivered(image.name, dst, image.digest, image.digest, status=Status.CHANGED)
        plan = Plan(report, image_copy, self.here.get(dst))
        try:
            self._decide(plan, checked.get(dst, checks.UNKNOWN))
        except FerryError as error:
            plan.fail(error)
        return plan

    def _decide(self, plan: Plan, check: Check) -> None:
        """Settles what the name shall point at, and what must be there; or why not."""
        self._refuse_pin()
        image, copy_request, facts = plan.image_copy.image, self.copy_request, self.facts
        content = self.content
        choice = content.choose(
            image, copy_request.platform, facts.platform, partial_index=facts.ctr.capabilities.partial_index
        )
        plan.target = choice.target
        plan.report.digest, plan.report.note = choice.target.digest, choice.note
        platform = copy_request.platform or facts.platform
        blobs = blobs_to_copy(content, image, choice.target, platform, every=copy_request.every)
        documents = {blob.digest: content.blobs[blob.digest] for blob in blobs if blob.digest in content.blobs}
        plan.load = Load(tuple(blobs), documents)
        existing = plan.existing
        if existing and existing.digest == choice.target.digest and self._is_whole(plan, check):
            part = choice.target.digest != image.digest
            plan.unchanged(f"same (platform manifest of index {image.digest})" if part else "it is there already")
        elif existing and existing.digest != choice.target.digest and not copy_request.force:
            raise exists(plan.report.dst, self.namespace, existing.digest, choice.target.digest)
        plan.report.previous_digest = existing.digest if existing and existing.digest != choice.target.digest else ""
        if plan.open and not copy_request.unpack and not facts.ctr.capabilities.no_unpack:
            plan.noted(f"ctr {facts.client} always unpacks")

    def _known(self) -> Content:
        """What the source has, and what is here.

        A manifest that the source lacks and this host has is read here; one that cannot be read is as good as absent.
        """
        given, here, elsewhere = self.copy_request.content, self.store.here, self.store.elsewhere
        tops = [
            given.manifest(p.image.digest) for p in self.copy_request.image_copies if p.image.digest not in given.bad
        ]
        listed = {child.digest for top in tops for child in top.children if child.media_type in INDEXES | MANIFESTS}
        unread = listed - given.blobs.keys() - given.bad.keys()
        own = Content()
        inspect.fetch(self.host, self.facts, self.namespace, sorted(unread & here), read=own)
        there = (here | elsewhere) - (unread - own.blobs.keys())
        return replace(given, visible=given.visible | there, blobs={**given.blobs, **own.blobs})

    def _is_whole(self, plan: Plan, check: Check) -> bool:
        """A name may be what an import that failed has left."""
        assert plan.load  # noqa: S101
        there = all(blob.digest in self.store.here for blob in plan.load.blobs)
        pinned = not self.copy_request.pin or (plan.existing is not None and PINNED in plan.existing.labels)
        unpacked = check.unpacked or not self.copy_request.unpack
        return there and pinned and (self._is_foreign(plan) or (check.complete and unpacked))

    def _is_foreign(self, plan: Plan) -> bool:
        """Whether it is of another platform than the host's, so that containerd does not unpack it."""
        if plan.target and plan.target.platform:
            return plan.target.platform != self.facts.platform
        image = plan.image_copy.image
        return image.platforms == "-" or not image.is_for(self.facts.platform)

    def _refuse_pin(self) -> None:
        server = Version.parse(self.facts.server)
        if self.copy_request.pin and not (self.place.cri_managed and server and server.at_least(1, 7)):
            raise MethodUnsupported(
                f"containerd {self.facts.server} does not pin {self.namespace}'s images",
                detail="CRI heeds the label from containerd 1.7 on, in k8s.io alone",
                hint="leave --pin out for this host",
            )

    def _account(self, plans: Sequence[Plan]) -> None:
        """A blob that several images need counts for the first."""
        counted: set[str] = set()
        for plan in plans:
            if not (plan.open and plan.load):
                continue
            report, has = plan.report, self.store.here | self.store.elsewhere | counted
            sent = [blob for blob in plan.load.blobs if blob.digest not in has]
            saved = [blob for blob in plan.load.blobs if blob.digest in has]
            counted |= {blob.digest for blob in sent}
            report.blobs_sent, report.bytes_sent = len(sent), sum(blob.size for blob in sent)
            report.blobs_saved, report.bytes_saved = len(saved), sum(blob.size for blob in saved)
            linked = any(blob.digest in self.store.elsewhere - self.store.here for blob in saved)
            report.method = "blobs" if sent else "link" if linked else "index"

    def _make_sure_it_fits(self, todo: Sequence[Plan]) -> None:
        """Refuses what surely does not fit, before anything is sent; tells what may not, and all of it in a dry run."""
        coming, grows = sum(plan.report.bytes_sent for plan in todo), free_space.growth(self._to_unpack(todo))
        found = free_space.judge(self.room, coming, grows)
        if isinstance(found, DiskFull):
            for plan in todo:
                if plan.report.bytes_sent:
                    plan.fail(found)
            return
        needs = free_space.needs(self.room, coming, grows) if self.host.dry_run and todo else ""
        self.notices = tuple(filter(None, (found, needs)))

    def _to_unpack(self, todo: Sequence[Plan]) -> list[Descriptor]:
        """The layers that containerd has yet to unpack; those that are here already mostly are."""
        content, platform = self.content, self.copy_request.platform or self.facts.platform
        own = [plan.target for plan in todo if plan.target and self.copy_request.unpack and not self._is_foreign(plan)]
        layers = {blob.digest: blob for target in own for blob in content.needed(target, platform)}
        return [blob for digest, blob in layers.items() if digest not in self.store.here]

    def _bring(self, todo: Sequence[Plan], *, once_more: bool = True) -> None:
        """Holds, fetches and names; what goes wrong with one image leaves the others alone.

        What is tried once more is held anew before it is let go: a collection in between would take what arrived.
        """
        for plan in todo:
            plan.again = None
        with self._holding(todo) as prepared:
            for number, plan in enumerate(todo):
                if not prepared[f"prepare-{number}"].ok:
                    plan.stop(failure(prepared[f"prepare-{number}"], plan.image_copy.image.name))
            held = [plan for plan in todo if plan.ready]
            wanted = ingest.to_send([plan.load for plan in held if plan.load], self.store)
            self.total += sum(blob.size for blob in wanted)
            failed = self._fetch(wanted)
            for plan in held:
                self._settle(plan, failed)
            if ready := [plan for plan in held if plan.ready]:
                self._name(ready)
            if once_more and (again := [plan for plan in todo if plan.again]):
                self._once_more(again)

    def _once_more(self, again: Sequence[Plan]) -> None:
        """What goes wrong now is told of these images, not of those that are done."""
        for plan in again:
            plan.again = None
        try:
            self._look()
            self._bring(again, once_more=False)
        except FerryError as error:
            for plan in again:
                if not plan.done and plan.error is None:
                    plan.fail(plan.again or error)

    def _fetch(self, wanted: Sequence[Descriptor]) -> dict[str, FerryError]:
        """By digest, why a blob did not come."""
        if not wanted:
            self.fan_out.gone(self.host.name)
            return {}
        began = time.monotonic()
        try:
            return self.fan_out.deliver(self.host.name, wanted, self._sink)
        finally:
            self.seconds += time.monotonic() - began

    @contextlib.contextmanager
    def _holding(self, todo: Sequence[Plan]) -> Iterator[dict[str, Answer]]:
        loads = [plan.load for plan in todo if plan.load]
        hold = self.host.run_in_background(ingest.hold(self.place, loads, self.store), limit=_DAY)
        try:
            with self.host.lost_connection():
                prepared = hold.prepared(self.host.target.limits.command)
            yield prepared
        except BaseException:
            with contextlib.suppress(FerryError), self.host.lost_connection():
                hold.release()
            raise
        try:
            with self.host.lost_connection():
                hold.release(b"" if any(plan.error or plan.again for plan in todo) else ingest.NAMED)
        except FerryError as error:  # what is named and verified stays so
            for plan in todo:
                plan.noted(f"what held its blobs there did not end as it should ({error.message}): look with doctor")

    def _sink(self, blob: Descriptor) -> _Ingest:
        return _Ingest(self, blob)

    def moved(self, size: int) -> None:
        """So many bytes more have gone to the host."""
        with self._counting:
            before, self.sent = self.sent, self.sent + size
        if before // _STEP != self.sent // _STEP or self.sent >= self.total:
            self.host.moved(self.sent, self.total)

    def _settle(self, plan: Plan, failed: dict[str, FerryError]) -> None:
        """Whether all of an image's blobs have come."""
        assert plan.load  # noqa: S101
        errors = [failed[blob.digest] for blob in plan.load.blobs if blob.digest in failed]
        if errors:
            plan.stop(next((error for error in errors if isinstance(error, _FINAL)), errors[0]))

    def _name(self, ready: Sequence[Plan]) -> None:
        """Names all in one remote command, which looks at what came of it and takes back what it cannot prove."""
        namings = [self._naming(plan) for plan in ready]
        answers = self.host.ask(ingest.names(self.place, namings))
        now = Listing.parse(self.namespace, required(answers["verify"], "verify").text)
        there = parse_digests(answers["there"].text.splitlines())
        checked = checks.parse_checks(answers["check"].text) if "check" in answers else {}
        was, kept, vanished = naming.was(self.place, answers), numbers(answers["kept"]), []
        for number, (plan, given) in enumerate(zip(ready, namings, strict=True)):
            verdict = judge(
                plan.report.dst,
                plan.report.digest,
                answers[f"name-{number}"],
                now.get(plan.report.dst),
                namespace=self.namespace,
                cri_managed=self.place.cri_managed,
                tolerant=self.facts.ctr.capabilities.oci_name and given.foreign,
                fresh=plan.existing is None,
            )
            plan.again = verdict.error or self._verify(plan, there, checked, answers.get(f"pin-{number}"))
            if plan.again:
                vanished += [plan] if number in kept and verdict.ours and not plan.existing else []
            elif not verdict.ours:
                plan.unchanged("somebody else gave that name meanwhile, with this digest")
            elif number not in kept:
                plan.again = unproved(plan.report.dst)
            elif plan.existing:
                tell_moved(plan.report, was.get(plan.report.dst), now.get(plan.report.dst))
            plan.done = plan.again is None
        if vanished:
            names, digests = [plan.report.dst for plan in vanished], {plan.report.digest for plan in vanished}
            remove_names(self.host, self.facts.ctr, self.here, names, digests)

    def _naming(self, plan: Plan) -> Naming:
        assert plan.target and plan.load  # noqa: S101
        target, brought = plan.target, frozenset(blob.digest for blob in plan.load.blobs)
        content = replace(self.content, visible=brought)
        whole = content.below(target).keys() <= brought
        return Naming(
            Method.BLOBS,
            plan.image_copy.image.name,
            plan.image_copy.dst,
            target,
            replaces=plan.existing is not None,
            whole=whole,
            foreign=self._is_foreign(plan),
            rest=content.rest(target, self.facts.platform) if target.is_index and not whole else {},
            unpack=self.copy_request.unpack,
            complete=not self._is_foreign(plan),
            pin=self.copy_request.pin,
        )

    def _verify(
        self, plan: Plan, there: frozenset[str], checked: dict[str, Check], pinned: Answer | None
    ) -> FerryError | None:
        """What the host says of the image besides its name."""
        assert plan.load  # noqa: S101
        dst = plan.report.dst
        if absent := [blob.digest for blob in plan.load.blobs if blob.digest not in there]:
            return VerifyFailed(
                f"{dst} is named, but blobs of it have vanished meanwhile",
                detail="\n".join(absent),
                hint="run it again; something removes images on that host all the time",
            )
        check = checked.get(dst, checks.UNKNOWN)
        unpacked = check.unpacked or not self.copy_request.unpack
        if not self._is_foreign(plan) and not (check.complete and unpacked):
            return VerifyFailed(
                f"{dst} is named, but containerd says that it is not whole or not unpacked",
                detail=f"{check.status}, {'unpacked' if check.unpacked else 'not unpacked'}",
                hint="look at containerd's log on that host",
            )
        return failure(pinned, dst) if pinned and not pinned.ok else None

    def _result(self, plans: Sequence[Plan]) -> DeliveryResult:
        result = DeliveryResult(
            self.source.name,
            self.namespace,
            self.facts.client,
            self.facts.server,
            tuple(plan.report for plan in plans),
            bytes_sent=self.sent,
            seconds=round(self.seconds, 3),
            rate=int(self.sent / self.seconds) if self.seconds else 0,
            notices=self.notices,
        )
        if errors := [plan.error for plan in plans if plan.error]:
            if len(plans) == 1:
                raise errors[0]
            raise SomeFailed(
                f"{len(errors)} of {len(plans)} images were not done",
                hint="mend these and run it again; the others stay",
                result=result,
            )
        return result


class _Ingest:
    """One blob on its way into a host's content store; what `FanOut` calls a sink."""

    def __init__(self, job: Job, blob: Descriptor) -> None:
        self._job, self._blob = job, blob
        host = job.host
        self._intake = ingest.intake(job.place, blob, next(job.attempts))
        limit = ingest.time_for(blob.size, host.target.limits.command)
        self._upload = host.upload(Script({"ingest": self._intake.step}), limit=limit)
        self._send(self._intake.head)

    def _send(self, data: bytes) -> bool:
        with self._job.host.lost_connection():
            return self._upload.write(data)

    def write(self, data: bytes) -> bool:
        """Sends data."""
        taken = self._send(data)
        self._job.moved(len(data))
        return taken

    def end(self) -> None:
        """Waits until containerd has checked and taken it.

        Raises:
            FerryError: it did not.
        """
        self._send(self._intake.tail)
        with self._job.host.lost_connection():
            answer = self._upload.end()["ingest"]
        if not answer.ok:
            raise failure(answer, f"blob {self._blob.digest}")

    def cut(self) -> None:
        """Ends it on the host."""
        self._upload.cut()
