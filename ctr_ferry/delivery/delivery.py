"""Carries out what was decided: names, pushes, pulls, copies. What is reported is what the hosts said last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ctr_ferry.delivery import steps
from ctr_ferry.delivery.entry import Entry, mended
from ctr_ferry.delivery.inspection import Inspection
from ctr_ferry.delivery.request import Via
from ctr_ferry.delivery.results import DeliveredImage, DeliverResult, Step
from ctr_ferry.delivery.routes import Choice, Decision, Route
from ctr_ferry.errors import FerryError, Interrupted, SomeFailed, Unreachable
from ctr_ferry.images.item import ImageResult
from ctr_ferry.images.mappings import Pair
from ctr_ferry.images.retag import RetagJob, RetagRequest, RetagResult
from ctr_ferry.report.outcome import Answer, Result, Status, as_dry_run
from ctr_ferry.run.interrupts import Terminated
from ctr_ferry.run.scheduler import interrupted
from ctr_ferry.transfer.copy_request import ImageCopy
from ctr_ferry.transfer.copy_result import CopyResult

if TYPE_CHECKING:
    from ctr_ferry.delivery.plan_file import DeliveryPlan
    from ctr_ferry.registry.pull import PullRequest
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.transfer.fan_out import FanOut

Entries = dict[ImageCopy, Entry]
Chosen = Callable[[str], Entries]  # what one round of copies brings to a host


class Delivery:
    """Images on their way to all targets of one run.

    Args:
        decisions: one for each image, in the order of ``found.copies``.
        plan: where they are from a plan, that plan: nothing else is done then.
    """

    def __init__(
        self, fleet: Fleet, found: Inspection, decisions: Sequence[Decision], plan: DeliveryPlan | None = None
    ) -> None:
        self._fleet, self._found, self._request = fleet, found, found.request
        self._strict = plan is not None or found.request.via is Via.REGISTRY
        self._decisions = dict(zip(found.copies.image_copies, decisions, strict=True))
        for host, error in found.answers.items():
            error.hint = mended(error.hint, found.request, host)
        for number, decision in enumerate(decisions):
            if decision.relay and decision.pusher in found.targets:
                found.targets[decision.pusher].plan_whole(number)
        self._names = [
            (image_copy, step)
            for image_copy, step in steps.names_to_give(found, self._decisions)
            if plan is None or plan.has_name(image_copy, step.host, found)
        ]
        self._entries = {host: self._entries_of(host) for host in found.targets}
        self._missing = {
            host: [Entry.missing(*names, error) for names, error in found.missing.items()] for host in found.targets
        }
        self._steps: list[Step] = []
        self._not_pushed: dict[ImageCopy, FerryError] = {}

    def _entries_of(self, host: str) -> Entries:
        items = zip(self._decisions.items(), self._found.targets[host].items, strict=True)
        return {
            image_copy: Entry.planned(image_copy, item, decision.choices.get(host), self._found.giver(image_copy))
            for (image_copy, decision), item in items
        }

    def foretell(self) -> dict[str, Answer]:
        """Returns what `run` would do; changes nothing, and tells every ``changed`` as ``would-change``."""
        planned = [*self._names, *steps.pushes_to_make(self._decisions)]
        self._steps = [step for _, step in planned]

        def work(host: Host) -> Result:
            try:
                return as_dry_run(self._end(host))
            except FerryError as error:
                raise as_dry_run(error) from error

        return self._found.answers | self._fleet.each(work)

    def plan(self) -> DeliveryPlan:
        """What `run` would do, as a plan."""
        from ctr_ferry.delivery import plan_file

        results = {host: [entry.result for entry in on_host.values()] for host, on_host in self._entries.items()}
        return plan_file.planned(self._found, list(self._decisions.values()), self._names, results)

    def run(self) -> dict[str, Answer]:
        """Names, pushes, pulls and copies; returns by host the result, or the error with the result.

        Raises:
            KeyboardInterrupt, Terminated: the run was interrupted; the fleet's answers tell what was done until then.
        """
        try:
            return self._run()
        except (KeyboardInterrupt, Terminated):
            self._fleet.answers |= self._cut()
            raise

    def _cut(self) -> dict[str, Answer]:
        """What was done on each host before the run was interrupted. What was not done is ``skipped``."""
        answers: dict[str, Answer] = {}
        for host in self._entries:
            left = [entry for entry in self._all(host) if entry.goes(*Route)]
            for entry in left:
                entry.result.status = Status.SKIPPED
            answer = self._fleet.answers.get(host)
            if left or isinstance(answer, Interrupted):
                error = answer if isinstance(answer, FerryError) and answer.result else interrupted()
                error.result = self._result(host)
                answers[host] = error
        return answers

    def _run(self) -> dict[str, Answer]:
        answers: dict[str, Answer] = dict(self._found.answers)
        self._steps += steps.name(self._fleet, self._request, self._names)
        self._push(relays=False)
        if any(decision.relay for decision in self._decisions.values()):
            answers |= self._fleet.together(self._round(self._to_relay, self._relay), close=False)
            self._push(relays=True)
        if any(entry.goes(Route.REGISTRY) for on_host in self._entries.values() for entry in on_host.values()):
            answers |= self._fleet.each(self._pull, close=False)
        return answers | self._fleet.together(self._round(self._to_copy, self._copy_and_end))

    def _push(self, *, relays: bool) -> None:
        planned = steps.pushes_to_make(self._decisions)
        now = [(image_copy, step) for image_copy, step in planned if self._decisions[image_copy].relay is relays]
        for image_copy, done in steps.push(self._fleet, self._request, now).items():
            if isinstance(done, FerryError):
                self._not_pushed[image_copy] = done
            step = dict(now)[image_copy]
            self._steps.append(
                replace(step, status=Status.FAILED, error=done.to_json()) if isinstance(done, FerryError) else done
            )

    # What comes to a target from its registry

    def _pull(self, host: Host) -> Result:
        """Pulls images to one host. Those that cannot be pulled come over SSH in the end, if they may."""
        wanted = {copy: entry for copy, entry in self._entries[host.name].items() if entry.goes(Route.REGISTRY)}
        for image_copy, entry in wanted.items():
            if error := self._not_pushed.get(image_copy):
                self._not_pulled(image_copy, entry, error)
        if left := {copy: entry for copy, entry in wanted.items() if copy not in self._not_pushed}:
            self._pull_set(host, left)
        # A host to which nothing more comes has failed now, not after all others: --limit-failures counts it.
        return self._result(host.name) if self._to_copy(host.name) else self._end(host)

    def _pull_set(self, host: Host, wanted: Entries) -> None:
        from ctr_ferry.registry.pull import PullSet

        with self._telling(host.name):
            pulls = PullSet(host, [self._pull_request(image_copy) for image_copy in wanted])
        ended: FerryError | None = None
        try:
            pulls.run()
        except FerryError as error:
            ended = error
        reasons = [why for why in (ended, *(item.error for item in pulls.items)) if why]
        cut = next((why for why in reasons if host.abandoned or isinstance(why, (Unreachable, Interrupted))), None)
        for (image_copy, entry), item in zip(wanted.items(), pulls.items, strict=True):
            if item.image.status in (Status.CHANGED, Status.UNCHANGED):
                entry.pulled(item.image)
            elif not cut and (why := item.error or ended):
                self._not_pulled(image_copy, entry, why)
        if cut:
            raise self._with_result(host.name, cut) from cut

    def _pull_request(self, image_copy: ImageCopy) -> PullRequest:
        from ctr_ferry.registry.pull import PullRequest

        return PullRequest(
            reference=image_copy.dst,
            digest=image_copy.image.digest,
            namespace=self._request.namespace,
            force=self._request.force,
        )

    def _not_pulled(self, image_copy: ImageCopy, entry: Entry, error: FerryError) -> None:
        if self._strict or entry.over_ssh:
            entry.fail(error)
            return
        giver = self._found.giver(image_copy)
        entry.take(Choice(Route.SSH, f"from {giver}: the registry failed ({error.message})"), giver)

    # What comes to targets over SSH

    def _round(self, chosen: Chosen, work: Callable[[Host, FanOut], Result]) -> Callable[[Sequence[str]], _Batch]:
        """Makes a round of copies: from a batch of hosts, its fan-out and the work on each host."""
        from ctr_ferry.transfer.fan_out import FanOut

        def batch(hosts: Sequence[str]) -> _Batch:
            served = [host for host in hosts if chosen(host)]
            return _Batch(FanOut(served, self._found.source), work)

        return batch

    def _to_relay(self, host: str) -> Entries:
        """What a host gets because it will push it for the others."""
        return {
            image_copy: entry
            for image_copy, entry in self._to_copy(host).items()
            if self._decisions[image_copy].relay and self._decisions[image_copy].pusher == host
        }

    def _to_copy(self, host: str) -> Entries:
        return {copy: entry for copy, entry in self._entries[host].items() if entry.goes(Route.SSH, Route.NAMED)}

    def _relay(self, host: Host, fan_out: FanOut) -> Result:
        self._copy(host, fan_out, self._to_relay(host.name), own=False)  # a push needs all platforms
        return self._result(host.name)

    def _copy_and_end(self, host: Host, fan_out: FanOut) -> Result:
        entries = self._to_copy(host.name)
        named = self._name_together(host, entries)
        self._copy(host, fan_out, entries, own=True)
        for entry, image in named:
            entry.named(image)
        return self._end(host)

    def _name_together(self, host: Host, entries: Entries) -> list[tuple[Entry, ImageResult]]:
        """Gives several images that a host lists under other names their names at once, as `retag` does.

        A copy names them one by one. Now it only verifies them, and does once more what failed or is not unpacked.
        """
        here = self._found.targets[host.name].destination.session.here
        pairs: dict[str, tuple[Pair, Entry]] = {}
        for image_copy, entry in entries.items():
            by_retag = entry.goes(Route.NAMED) and not image_copy.dst.digest  # retag gives names with tags
            images = here.by_digest(entry.result.digest) if by_retag else []
            if images and images[0].user_named:
                pairs[str(image_copy.dst)] = Pair(images[0].name, image_copy.dst), entry
        if len(pairs) < 2:
            return []
        wanted = tuple(pair for pair, _ in pairs.values())
        with self._telling(host.name):
            try:
                request = RetagRequest(wanted, namespace=self._request.namespace, force=self._request.force)
                result: RetagResult = RetagJob(host, request).run()
            except SomeFailed as some:
                result = some.result
        return [(pairs[image.reference][1], image) for image in result.images if image.status is Status.CHANGED]

    def _copy(self, host: Host, fan_out: FanOut, entries: Entries, *, own: bool) -> None:
        """Copies images to one host, and notes what came of each."""
        from ctr_ferry.transfer.host_copy import HostCopy

        if not entries:
            return
        copies = self._found.copies
        request = replace(copies, image_copies=tuple(entries), options=replace(copies.options, own=own), notices=())
        with self._telling(host.name):
            try:
                result: CopyResult = HostCopy(host, request, fan_out).run()
            except SomeFailed as some:
                result = some.result
            except FerryError as error:
                if len(entries) > 1 or isinstance(error, (Unreachable, Interrupted)):
                    raise
                for entry in entries.values():
                    entry.fail(error)
                return
        by_name = {image.reference: image for image in result.images}
        for entry in entries.values():
            entry.copied(by_name[entry.result.reference], result.seconds)

    # What is reported

    def _all(self, host: str) -> list[Entry]:
        return [*self._entries[host].values(), *self._missing[host]]

    def _result(self, host: str) -> DeliverResult:
        target, images = self._found.targets[host], tuple(entry.result for entry in self._all(host))
        session = target.destination.session
        return DeliverResult(
            namespace=session.place.namespace,
            ctr=session.facts.client,
            containerd=session.facts.server,
            images=images,
            bytes=sum(image.bytes for image in images),
            seconds=_seconds(images),
            steps=tuple(self._steps),
            notes=target.notices,
        )

    @contextmanager
    def _telling(self, host: str) -> Iterator[None]:
        """A block whose errors end the work on a host, and have the host's result."""
        try:
            yield
        except FerryError as error:
            raise self._with_result(host, error) from error

    def _with_result(self, host: str, error: FerryError) -> FerryError:
        """An error that ended the work on a host: all that has yet to come there has failed with it."""
        error.hint = mended(error.hint, self._request, host)
        for entry in self._all(host):
            if entry.goes(*Route):
                entry.fail(error)
        error.result = self._result(host)
        return error

    def _end(self, host: Host) -> Result:
        """Returns a host's result; raises one error for all images that did not come, with the result."""
        entries = self._all(host.name)
        failed = [entry for entry in entries if entry.failed]
        for entry in failed:
            entry.mend(self._request, host.name)
        result = self._result(host.name)
        if not failed:
            return result
        error = failed[0].error if len(entries) == 1 else None
        again = mended("follow the hint of each", self._request, host.name)
        error = error or SomeFailed(f"{len(failed)} of {len(entries)} images were not delivered", hint=again)
        error.result = result
        raise error


def _seconds(images: Sequence[DeliveredImage]) -> float:
    """How long all took: pulls one after the other, what was copied all together."""
    copied = {image.seconds for image in images if image.route != Route.REGISTRY}
    return round(sum(copied) + sum(image.seconds for image in images if image.route == Route.REGISTRY), 3)


class _Batch:
    """Hosts that are served by one fan-out; what `Fleet.together` asks for."""

    def __init__(self, fan_out: FanOut, work: Callable[[Host, FanOut], Result]) -> None:
        self._fan_out, self._work = fan_out, work
        self.gone = fan_out.gone

    def work(self, host: Host) -> Result:
        """Does all that this round has for one host."""
        return self._work(host, self._fan_out)
