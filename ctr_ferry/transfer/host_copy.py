"""Images from one source to all hosts of a fleet, and one host's part: inspect, protect, send, name, verify."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence

from ctr_ferry.ctr import gc_protection, ingest
from ctr_ferry.ctr.commands import owner_of
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.listing import parse_digests
from ctr_ferry.errors import DaemonUnreachable, FerryError
from ctr_ferry.images.item import Item, settle
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.outcome import Result
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.shell import Answer
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy_request import CopyRequest
from ctr_ferry.transfer.copy_result import CopiedImage, CopyResult
from ctr_ferry.transfer.destination import Destination
from ctr_ferry.transfer.fan_out import FanOut, Source
from ctr_ferry.transfer.plan import Plan, pending
from ctr_ferry.transfer.receiver import SLOTS
from ctr_ferry.transfer.upload import Progress, Upload

_DAY = 86400  # seconds that a host protects what arrived, at most
_RESTART = 10  # seconds in which a containerd that has gone may come back
_PAUSE = 1.0  # seconds between two looks for it


def copy_images(fleet: Fleet, copy_request: CopyRequest, source: Source) -> dict[str, Result | FerryError]:
    """Copies images to every host of the fleet, in batches of at most ``fleet.workers`` (fabric.yaml) hosts.

    A blob leaves the source once for each batch that needs it. Returns by host a CopyResult, or why there is none.
    """
    return dict(fleet.together(lambda hosts: _Batch(copy_request, FanOut(hosts, source))))


class _Batch:
    """Hosts that are served by one fan-out; what `Fleet.together` asks for."""

    def __init__(self, copy_request: CopyRequest, fan_out: FanOut) -> None:
        self._copy_request, self._fan_out = copy_request, fan_out
        self.gone = fan_out.gone

    def work(self, host: Host) -> Result:
        """Does all that is to be done on one host."""
        return HostCopy(host, self._copy_request, self._fan_out).run()


class HostCopy:
    """The copy to one host, from the first inspection to the last verification."""

    def __init__(self, host: Host, copy_request: CopyRequest, fan_out: FanOut) -> None:
        self._host, self._copy_request, self._fan_out = host, copy_request, fan_out
        self._token = secrets.token_hex(2)  # one machine may be several hosts of a run
        self._attempts, self._inspections = itertools.count(), itertools.count(1)
        self._progress = Progress(host.moved)
        self._seconds = 0.0

    def run(self) -> CopyResult:
        """Plans, sends what is missing, names and verifies; tries once more what may succeed then.

        Raises:
            FerryError: the one image's own error, or SomeFailed with the result.
        """
        found = self._inspect()
        items = found.plan_images()
        if self._host.dry_run:
            found = found.without_isolated(pending(items))
        notices = found.check_room(pending(items), dry_run=self._host.dry_run)
        todo = pending(items)
        if todo and not self._host.dry_run:
            self._bring(todo, found)
            for plan in todo:
                if plan.again:
                    plan.fail(plan.again)
        return self._result(items, found, notices)

    def _inspect(self) -> Destination:
        owner = f"{owner_of(self._host.run_id)}.{self._token}.{next(self._inspections)}"
        return Destination.inspect(self._host, self._copy_request, owner)

    def _inspect_again(self) -> Destination:
        """Inspects the host once more; a containerd that has gone may be about to come back, as in a restart."""
        deadline = time.monotonic() + _RESTART
        while True:
            try:
                return self._inspect()
            except DaemonUnreachable:
                if time.monotonic() > deadline:
                    raise
            self._host.pause(_PAUSE)

    def _bring(self, todo: Sequence[Plan], found: Destination, *, once_more: bool = True) -> None:
        """Protects, sends and names; an error of one image does not touch the others.

        Images that are tried once more are protected anew before the first protection ends: a collection in between
        would take what arrived.
        """
        with _protected(self._host, todo, found) as (prepared, spare):
            for number, plan in enumerate(todo):
                if not prepared[f"prepare-{number}"].ok:
                    plan.stop(failure(prepared[f"prepare-{number}"], plan.image_copy.image.name))
            safe = [plan for plan in todo if plan.ready]
            unlinked = parse_digests(line for answer in prepared.values() for line in answer.text.splitlines())
            found = found.without_links(unlinked, safe)
            wanted = ingest.to_send([plan.needed for plan in safe], found.store)
            failed = self._fetch(wanted, found, spare)
            for plan in safe:
                plan.stop_incomplete(failed)
            if ready := [plan for plan in safe if plan.ready]:
                found.name_images(ready)
            again = [plan for plan in todo if plan.again] if once_more else []
            if again and spare > 1:
                self._once_more(again)
        if again and spare <= 1:  # sshd has no room for a second protection beside the first
            self._once_more(again)

    def _once_more(self, again: Sequence[Plan]) -> None:
        """Tries images a second time. An error now fails these images, not those that are done."""
        for plan in again:
            plan.again = None
        try:
            self._bring(again, self._inspect_again(), once_more=False)
        except FerryError as error:
            for plan in again:
                if not plan.done and plan.error is None:
                    plan.fail(plan.again or error)

    def _fetch(self, wanted: Sequence[Descriptor], found: Destination, spare: int) -> Mapping[str, FerryError]:
        """Gets blobs from the fan-out, ``spare`` at a time; returns by digest why a blob did not come."""
        if not wanted:
            self._fan_out.gone(self._host.name)
            return {}

        def sink(blob: Descriptor) -> Upload:
            return Upload(self._host, found.session.place, blob, next(self._attempts), self._progress.add)

        if not spare:  # one error for all blobs, rather than one for each of them
            self._host.wait_for_session()
        self._progress.total += sum(blob.size for blob in wanted)
        began = time.monotonic()
        try:
            return self._fan_out.send(self._host.name, wanted, sink, max(1, spare))
        finally:
            self._seconds += time.monotonic() - began

    def _result(self, items: Sequence[Item[CopiedImage]], found: Destination, notices: tuple[str, ...]) -> CopyResult:
        sent, seconds = self._progress.sent, self._seconds
        result = CopyResult(
            origin=self._fan_out.source.name,
            namespace=found.session.place.namespace,
            ctr=found.session.facts.client,
            containerd=found.session.facts.server,
            images=tuple(item.result for item in items),
            bytes=sent,
            seconds=round(seconds, 3),
            rate=int(sent / seconds) if seconds else 0,
            notes=(*self._copy_request.notices, *notices),
        )
        settle(
            result,
            len(items),
            [item.error for item in items if item.error],
            f"images were not {self._copy_request.verb}",
            "the others stay; follow the hint of each, then run the command again",
        )
        return result


@contextlib.contextmanager
def _protected(host: Host, todo: Sequence[Plan], found: Destination) -> Iterator[tuple[dict[str, Answer], int]]:
    """Protects the blobs of images from garbage collection while the block runs.

    Yields the answers of ``prepare-N``, and how many uploads sshd has room for beside the protection.

    The host ends the protection by itself if this process or the connection is gone. If the protection does not end
    as it should, each image gets a note; what is named and verified stays.
    """
    script = gc_protection.protect(found.session.place, [plan.needed for plan in todo], found.store)
    protection = host.run_in_background(script, limit=_DAY)
    try:
        spare = host.spare_sessions(SLOTS)
        with host.lost_connection():
            prepared = protection.prepared(host.target.limits.command)
        # What is read on the same host needs sessions, too.
        yield prepared, spare // 2 if host.is_source and spare > 1 else spare
    except BaseException:
        with contextlib.suppress(FerryError), host.lost_connection():
            protection.release()
        raise
    try:
        with host.lost_connection():
            protection.release(b"" if any(plan.error or plan.again for plan in todo) else gc_protection.ALL_NAMED)
    except FerryError as error:
        for plan in todo:
            plan.add_note(
                f"the protection of its blobs did not end as it should ({error.message}): run doctor on that host"
            )
