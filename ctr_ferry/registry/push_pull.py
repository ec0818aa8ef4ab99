"""What push and pull share: one image's way between one host and one registry, around ctr's own command."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ctr_ferry.ctr import free_space, push_pull
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.free_space import Room
from ctr_ferry.ctr.listing import parse_digests
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.progress import Progress
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.errors import ContentCorrupt, ContentMissing, DiskFull, FerryError, HostError
from ctr_ferry.images.content import checked
from ctr_ferry.oci.descriptor import Descriptor, Manifest, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.oci.registry import Login, Registries, Registry, RegistryState
from ctr_ferry.registry import credentials, refusals
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import authorities, own_authorities
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.forward import RegistryStateError

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.terminal import Terminal

_WORTH_ASKING = 8 << 20  # bytes
# What is no reason not to try: ctr may do what we may not ask.
_UNKNOWN = {
    RegistryState.NOT_CHECKED: "sshd there forwards no connections, and the host has no curl or wget to ask with",
    RegistryState.DENIED: "the registry does not let this login ask for it",
}
_FOR_A_LOGIN = (RegistryState.UNAUTHORIZED, RegistryState.DENIED)  # what nobody is told who might be somebody
_TOO_MANY = "toomanyrequests"  # Docker Hub's word to nobody
_LARGEST = 1 << 50  # bytes of a blob
_MANY = 100  # platforms of an index that are weighed
_PAUSES = (0.5, 1.0, 2.0)  # seconds, between the tries of a registry that fails by its own word


class RegistryTransferResult(Protocol):
    """What push and pull tell of an image; see their results."""

    @property
    def digest(self) -> str:
        """What the name points at."""

    @property
    def method(self) -> str:
        """How it came there; empty where nothing was to be done."""

    @property
    def ctr(self) -> str:
        """The version of the host's."""

    @property
    def verified(self) -> str:
        """``digest``, or ``unverified``."""

    @property
    def reason(self) -> str:
        """Why it is unverified."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of it."""


def told(what: str, result: RegistryTransferResult) -> list[str]:
    """The name, its digest, and what is to be known."""
    how = f"  ({result.method}, ctr {result.ctr})" if result.method else ""
    unsure = f"unverified: {result.reason}" if result.verified != "digest" else ""
    below = (result.digest, unsure, *result.notices)
    return [f"{what}{how}", *(f"  {line}" for line in below if line)]


@dataclass(frozen=True, slots=True)
class There:
    """What the registry has under a reference.

    Attributes:
        target: None where it has none, or where it could not be asked.
        unknown: why it could not be asked; empty where it was.
        present: bytes of what is to come that the repository has; None where that was not asked.
    """

    target: Descriptor | None
    unknown: str = ""
    present: int | None = None

    @property
    def digest(self) -> str | None:
        """What the reference points at."""
        return self.target.digest if self.target else None


class RegistryTransfer:
    """A host, a registry and a reference in it.

    Raises:
        HostError: what keeps this host's ctr from working with that registry.
        UsageError: what is wrong with the login for it.
    """

    def __init__(self, host: Host, facts: Facts, reference: Reference) -> None:
        self.host, self.facts, self.reference = host, facts, reference
        self.registry: Registry = host.target.variables_of(Registries).named(reference.domain)
        self._by_ctr: Login | None = None  # who we are since ctr was refused as nobody
        self._system = not self.registry.ca_file
        try:
            self._client = Client(host, self.registry, partial(credentials.login, self.registry))
        except RegistryStateError as error:
            raise self._error(error.state, error.detail) from error
        push_pull.refuse(facts.ctr, facts.client, self.route)

    @property
    def _login(self) -> Login | None:
        """Who we are, as far as the registry wants to know."""
        return self._client.login or self._by_ctr

    @property
    def route(self) -> Route:
        """How ctr gets there now: with a login, it believes whom we ourselves believe, and nobody else."""
        registry, login = self.registry, self._login
        alone = login is not None and registry.scheme == "https" and not registry.skip_verify
        return Route(
            registry,
            login.username if login else None,
            own_authorities(registry, system=self._system) if alone else authorities(registry),
            alone,
            self.host.target.variables_of(Registries).proxy,
            f"ctr-ferry.{self.host.run_id}",
        )

    def look(self, blobs: Mapping[str, int] | None = None) -> There:
        """Asks the registry, as the host sees it, what it has under the reference.

        Args:
            blobs: sizes by digest of what is to come; where it is much, it is asked which of it is there.

        Raises:
            RegistryError: what it says instead; Unreachable.
        """
        for pause in (*_PAUSES, None):
            try:
                with self._client.connected():
                    target = self._client.find(self.reference.path, str(self.reference.digest or self.reference.tag))
                    return There(target, present=self._present(blobs or {}))
            except RegistryStateError as error:
                if unknown := _UNKNOWN.get(error.state):
                    return There(None, unknown)
                if error.state is not RegistryState.FAILED or pause is None:
                    raise self._error(error.state, error.detail) from error
                self.host.pause(pause)
        raise AssertionError("unreachable")

    def _present(self, blobs: Mapping[str, int]) -> int | None:
        if sum(blobs.values()) < _WORTH_ASKING:
            return None
        found = self._client.present(self.reference.path, blobs)
        return None if found is None else sum(blobs[digest] for digest in found)

    def weigh(self, there: Room | None, platform: Platform | None) -> tuple[int | None, tuple[str, ...]]:
        """Bytes of all that the reference stands for, and what is to be said of the host's room for it.

        Args:
            there: where containerd writes.
            platform: the one that comes; None is all of them.

        Raises:
            DiskFull: it surely does not fit.
        """
        blobs = self._contents(platform) if there or self.host.dry_run else None
        if blobs is None:
            return None, ()
        found = _judge(there, blobs)
        if found:  # what is on the host already matters now, and is asked for only then
            ctr, namespaces = self.facts.ctr, self.facts.namespaces
            answers = self.host.ask(Script({f"has-{n}": ctr.digests(each) for n, each in enumerate(namespaces)}))
            has = parse_digests(line for answer in answers.values() for line in answer.text.splitlines())
            found = _judge(there, [blob for blob in blobs if blob.digest not in has])
        if isinstance(found, DiskFull):
            raise found
        size = sum(blob.size for blob in blobs)
        would = f"would move up to {size} bytes; {free_space.needs(there, size, free_space.growth(blobs))}"
        return size, tuple(filter(None, (found, would if self.host.dry_run else "")))

    def _contents(self, platform: Platform | None) -> list[Descriptor] | None:
        try:
            with self._client.connected():
                top = self._manifest(str(self.reference.digest or self.reference.tag))
                children = [child for child in top.children if platform in (None, child.platform)][:_MANY]
                manifests = (top, *(self._manifest(child.digest) for child in children))
                blobs = {blob.digest: blob for each in manifests for blob in each.blobs}
                return list(blobs.values()) if all(0 <= blob.size < _LARGEST for blob in blobs.values()) else None
        except (
            RegistryStateError,
            ContentMissing,
            ContentCorrupt,
            ValueError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            return None

    def _manifest(self, reference: str) -> Manifest:
        raw = self._client.read(self.reference.path, reference)
        if is_digest(reference):
            checked(reference, Answer(0, raw, ""), str(self.registry))
        return Manifest.parse(raw)

    def run(self, script: Callable[[str | None], Script], step: str, sizes: Mapping[str, int]) -> dict[str, Answer]:
        """Runs ctr's push or pull, answering its prompt, until it is done or the registry stops.

        A registry that fails by its own word is tried again a few times.

        It goes as nobody, until the registry wants a login.

        Args:
            script: from the terminal's device to the script; no device where none is needed.
            step: the one that pushes or pulls.
            sizes: of the blobs, as far as they are known.

        Returns:
            The answers to all steps.

        Raises:
            RegistryTimeout: no progress for too long; Unreachable, and what `Host.ask` raises.
        """
        pauses = iter(_PAUSES)
        while True:
            answers = self._once(script, Progress(sizes))
            if self._may_do_better(answers[step]):
                continue
            pause = next(pauses, None)
            if pause is None or self.meaning(answers[step]) is not RegistryState.FAILED:
                return answers
            self.host.pause(pause)

    def _may_do_better(self, answer: Answer) -> bool:
        """Whether a login changes what the registry said; or that this machine's CAs count besides ca_file."""
        state = self.meaning(answer)
        if not self._login and (state in _FOR_A_LOGIN or _TOO_MANY in answer.stderr):
            self._by_ctr = credentials.login(self.registry)
            return self._by_ctr is not None
        if state is RegistryState.UNKNOWN_CA and self.route.alone and not self._system:
            self._system = True  # a token service, or whoever keeps its blobs
            return True
        return False

    def _once(self, script: Callable[[str | None], Script], progress: Progress) -> dict[str, Answer]:
        needs_one = self._login is not None or not self.facts.ctr.capabilities.piped
        limit = self.host.target.limits.command
        with self.host.terminal(limit) if needs_one else nullcontext() as terminal:
            talk = _Talk(self, progress, terminal, self._login)
            return self.host.ask(script(terminal.device if terminal else None), listener=talk)

    def meaning(self, answer: Answer) -> RegistryState | None:
        """What a push or pull says of the registry; None where it went well, or the registry is not why."""
        return None if answer.ok else refusals.meaning(answer.stderr, self.registry)

    def failure(self, answer: Answer) -> FerryError:
        """The error that a push or pull ended with."""
        state = self.meaning(answer)
        plain = failure(answer, str(self.reference))
        return self._error(state, plain.detail) if state else plain

    def missing(self) -> HostError:
        """The error of a registry that has nothing under the reference."""
        return self._error(RegistryState.NOT_FOUND, "")

    def silent(self) -> HostError:
        """The error of a registry that stopped."""
        return self._error(RegistryState.NO_ANSWER, f"no progress within {self.host.target.limits.registry} s")

    def asked_again(self) -> HostError:
        """The error of a login that ctr asks for twice."""
        return self._error(RegistryState.UNAUTHORIZED, "ctr asked for the password again")

    def _error(self, state: RegistryState, detail: str) -> HostError:
        return refusals.error(state, str(self.reference), detail, login=bool(self._login))


def _judge(there: Room | None, blobs: Collection[Descriptor]) -> DiskFull | str:
    return free_space.judge(there, sum(blob.size for blob in blobs), free_space.growth(blobs))


class _Talk:
    """Hears a push or pull: tells its progress, answers its prompt once, and knows when it has stopped."""

    def __init__(
        self, transfer: RegistryTransfer, progress: Progress, terminal: Terminal | None, login: Login | None
    ) -> None:
        self._transfer, self._progress, self._terminal, self._login = transfer, progress, terminal, login
        self._answered = self._over = False
        self._moved = time.monotonic()
        self._state: object = None

    def hear(self, data: bytes) -> bytes:
        """Takes in what ctr printed; what is no progress is kept."""
        progress = self._progress
        kept = progress.feed(data)
        if progress.prompts and self._terminal and self._login:
            if progress.prompts > 1:
                raise self._transfer.asked_again()
            if not self._answered:
                self._terminal.type(self._login.password.reveal())
                self._answered = True
        if progress.items and data:
            self._transfer.host.moved(progress.done, progress.total)
        self._over = self._over or b" end " in kept  # the first step's frame
        self._refuse_silence()
        return kept

    def end(self) -> bytes:
        """The last line."""
        return self._progress.end()

    def _refuse_silence(self) -> None:
        now, state = time.monotonic(), (dict(self._progress.items), self._progress.read)
        if state != self._state or self._progress.unpacking or self._over:
            self._state, self._moved = state, now
        elif now - self._moved > self._transfer.host.target.limits.registry:
            raise self._transfer.silent()
