"""What push and pull share: they inspect a registry through a host, run ctr there, and tell what a failure meant."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ctr_ferry.ctr import free_space, push_pull
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.free_space import Room
from ctr_ferry.ctr.listing import parse_digests
from ctr_ferry.ctr.progress import Progress
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.errors import ContentCorrupt, ContentMissing, DiskFull, FerryError, HostError
from ctr_ferry.images.content import checked, described
from ctr_ferry.oci.descriptor import Descriptor, Manifest, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.oci.registry import Login, Registries, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry import credentials, refusals
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import authorities
from ctr_ferry.registry.listener import TransferListener
from ctr_ferry.shell import Answer, Script

if TYPE_CHECKING:
    from ctr_ferry.images.session import Session

_WORTH_ASKING = 8 << 20  # bytes of an image from which on the registry is asked which blobs it has
# Push and pull go on in these states: ctr may do what ctr-ferry may not ask.
_UNKNOWN = {
    RegistryState.NOT_CHECKED: "sshd there forwards no connections, and the host has no curl or wget to ask with",
    RegistryState.UNCLEAR: "the answer does not say, as a registry's does, whether the tag exists",
    RegistryState.DENIED: "the registry does not let this login ask for it",
}
_MAY_NEED_LOGIN = (RegistryState.UNAUTHORIZED, RegistryState.DENIED)
_RATE_LIMIT = "toomanyrequests"  # Docker Hub's limit is lower for those who are not logged in
_LARGEST = 1 << 50  # bytes of a blob
_PLENTY = 64 << 30  # bytes; with more free space, a pull does not compare its size first
_MOST_PLATFORMS = 100  # manifests of one index that are read to add up its size
_UNREADABLE = (ContentMissing, ContentCorrupt, ValueError, TypeError, AttributeError, RecursionError)  # of a manifest
_PAUSES = (0.5, 1.0, 2.0)  # seconds between the tries while the registry reports a failure of its own


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """What the registry has under a reference.

    Attributes:
        digest: what the reference points at; None where there is no such image, or the registry could not be asked.
        unknown: why the registry could not be asked; empty where it answered.
        present: bytes of the image to push that the repository has already; None where that was not asked.
    """

    digest: str | None
    unknown: str = ""
    present: int | None = None

    @property
    def verified(self) -> str:
        """How a result that rests on this answer is verified: by ``digest``, or ``unverified``."""
        return "unverified" if self.unknown else "digest"


class RegistryTransfer:
    """One reference that one host pushes or pulls; ``seconds`` tells how long ctr took.

    Raises:
        HostError: this host's ctr cannot work with that registry as the inventory describes it.
        UsageError: the login for the registry is missing, or cannot be used.
    """

    seconds = 0.0

    def __init__(self, session: Session, reference: Reference) -> None:
        host, facts = session.host, session.facts
        self.host, self.facts, self.reference, self._owner = host, facts, reference, session.place.owner
        self.registry: Registry = host.target.variables_of(Registries).named(reference.domain)
        self._login_for_ctr: Login | None = None  # since the registry refused ctr without a login
        self._trust_this_machine = not self.registry.ca_file
        try:
            self._client = Client(host, self.registry, partial(credentials.login, self.registry))
        except RegistryStateError as error:
            raise refusals.error(error.state, str(reference), error.detail, login=False) from error
        push_pull.refuse(facts.ctr, facts.client, self._route)

    @property
    def _login(self) -> Login | None:
        """The login, once the registry has asked for one."""
        return self._client.login or self._login_for_ctr

    @property
    def _route(self) -> Route:
        """How ctr gets to the registry. With a login, ctr trusts only the certificates that ctr-ferry itself trusts."""
        registry, login = self.registry, self._login
        # The token service may use TLS where the registry does not.
        exclusive = login is not None and not (registry.scheme == "https" and registry.skip_verify)
        return Route(
            registry=registry,
            username=login.username if login else None,
            authorities=authorities(registry, exclusive=exclusive, system=self._trust_this_machine),
            exclusive=exclusive,
            proxy=self.host.target.variables_of(Registries).proxy,
            owner=self._owner,
        )

    def inspect(self, blobs: Mapping[str, int] | None = None) -> RemoteImage:
        """Asks the registry, through the host, what it has under the reference.

        Args:
            blobs: bytes by digest of the image to push. Of a large image, the registry is asked which blobs it has.

        Raises:
            RegistryError: the registry does not tell.
            Unreachable: the connection to the host broke.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                with closing(self._client):
                    if self._login_for_ctr:
                        self._client.log_in(self.reference.path)
                    digest = self._client.find(self.reference.path, self._there)
                    return RemoteImage(digest, present=self._present(blobs or {}))
            except RegistryStateError as error:
                if unknown := _UNKNOWN.get(error.state):
                    return RemoteImage(None, unknown)
                pause = next(pauses, None)
                if error.state is not RegistryState.FAILED or pause is None:
                    raise self.error(error.state, error.detail) from error
            self.host.pause(pause)

    @property
    def _there(self) -> str:
        return str(self.reference.digest or self.reference.tag)

    def _present(self, blobs: Mapping[str, int]) -> int | None:
        if sum(blobs.values()) < _WORTH_ASKING:
            return None
        found = self._client.present(self.reference.path, blobs)
        return None if found is None else sum(blobs[digest] for digest in found)

    def described(self, digest: str) -> Descriptor:
        """Reads a manifest or index in the registry, and describes it by its own bytes.

        Raises as `inspect`, and ContentMissing or ContentCorrupt where the registry did not give that manifest.
        """
        try:
            with closing(self._client):
                raw = self._client.read(self.reference.path, digest)
        except RegistryStateError as error:
            raise self.error(error.state, error.detail) from error
        return described(digest, Answer(0, raw, ""), self.registry.name)

    def check_space(self, room: Room | None, platform: Platform | None) -> tuple[int | None, tuple[str, ...]]:
        """Compares the size of the image in the registry with the free space on the host.

        Args:
            room: the file systems that containerd writes to; None where they are not known.
            platform: the platform that is pulled; None is all of them.

        Returns:
            Bytes of all blobs, None where they are not known; and what the user should know about the space.

        Raises:
            DiskFull: the image does not fit.
        """
        # Registries count how often a manifest is read, so it is read only where space may be short, and in a dry run.
        short = room is not None and min(room.blobs.available, room.unpacked.available) < _PLENTY
        blobs = self._contents(platform) if short or self.host.dry_run else None
        if blobs is None:
            return None, ()
        size, growth = sum(blob.size for blob in blobs), free_space.growth(blobs)
        found = free_space.judge(room, size, growth)
        if found:  # only now it matters which blobs the host has already
            present = self._digests_on_host()
            coming = [blob for blob in blobs if blob.digest not in present]
            found = free_space.judge(room, sum(blob.size for blob in coming), free_space.growth(coming))
        if isinstance(found, DiskFull):
            raise found
        would = f"would move up to {size} bytes; {free_space.needs(room, size, growth)}"
        return size, tuple(filter(None, (found, would if self.host.dry_run else "")))

    def _digests_on_host(self) -> frozenset[str]:
        ctr, namespaces = self.facts.ctr, self.facts.namespaces
        answers = self.host.ask(Script({f"has-{n}": ctr.digests(each) for n, each in enumerate(namespaces)}))
        return parse_digests(line for answer in answers.values() for line in answer.text.splitlines())

    def _contents(self, platform: Platform | None) -> list[Descriptor] | None:
        """All blobs of the image in the registry; None where its manifests cannot be read, or make no sense."""
        try:
            with closing(self._client):
                top = self._manifest(self._there)
                children = [child for child in top.children if platform in (None, child.platform)][:_MOST_PLATFORMS]
                manifests = (top, *(self._manifest(child.digest) for child in children))
                blobs = {blob.digest: blob for each in manifests for blob in each.blobs}
                return list(blobs.values()) if all(0 <= blob.size < _LARGEST for blob in blobs.values()) else None
        except (RegistryStateError, *_UNREADABLE):
            return None

    def _manifest(self, reference: str) -> Manifest:
        raw = self._client.read(self.reference.path, reference)
        if is_digest(reference):
            checked(reference, Answer(0, raw, ""), self.registry.name)
        return Manifest.parse(raw)

    def run(
        self,
        script: Callable[[Route], Script],
        step: str,
        sizes: Mapping[str, int],
        *,
        is_done: Callable[[RemoteImage], bool] = lambda _: False,
    ) -> dict[str, Answer]:
        """Runs ctr's push or pull to its end, answers ctr's prompt, and ends ctr where nothing moves any longer.

        The first try has a login only if the registry has already asked for one. Before the first try with a login,
        the registry is inspected again with the login. A registry that reports a failure of its own gets a few more
        tries.

        Args:
            script: makes the script, given how ctr gets to the registry.
            step: the name of the step that pushes or pulls.
            sizes: bytes of the blobs by digest, as far as they are known.
            is_done: takes what the registry has for the login, and returns whether nothing is left to do.

        Returns:
            The answers to all steps of the last try.

        Raises:
            RegistryTimeout: nothing has moved for too long.
            FerryError: as `Host.ask`.
        """
        pauses, began = iter(_PAUSES), time.monotonic()
        while True:
            had_login = self._login is not None
            answers = self._once(script, sizes)
            self.seconds = round(time.monotonic() - began, 3)
            if self._has_another_way(answers[step]):
                if not had_login and is_done(self.inspect(sizes)):
                    return answers
                continue
            pause = next(pauses, None)
            if pause is None or self.meaning(answers[step]) is not RegistryState.FAILED:
                return answers
            self.host.pause(pause)

    def _has_another_way(self, answer: Answer) -> bool:
        """Whether another try has what this one lacked: a login, or this machine's CAs besides ca_file."""
        state = self.meaning(answer)
        if not self._login and (state in _MAY_NEED_LOGIN or _RATE_LIMIT in answer.stderr):
            self._login_for_ctr = credentials.login(self.registry)
            return self._login_for_ctr is not None
        if state is RegistryState.UNKNOWN_CA and self._route.exclusive and not self._trust_this_machine:
            self._trust_this_machine = True  # the token service, or where the blobs are, may have another CA
            return True
        return False

    def _once(self, script: Callable[[Route], Script], sizes: Mapping[str, int]) -> dict[str, Answer]:
        needs_terminal = self._login is not None or not self.facts.ctr.capabilities.piped
        limit = self.host.target.limits.command
        with self.host.terminal(limit) if needs_terminal else nullcontext() as terminal:
            listener = TransferListener(self, Progress(sizes), terminal, self._login)
            route = replace(self._route, terminal=terminal.device if terminal else None)
            return self.host.ask(script(route), listener=listener)

    def meaning(self, answer: Answer) -> RegistryState | None:
        """What ctr's answer means for the registry; None where ctr succeeded, or failed for another reason."""
        return None if answer.ok else refusals.meaning(answer.stderr, self.registry)

    def failure(self, answer: Answer) -> FerryError:
        """The error for a push or pull that failed."""
        state = self.meaning(answer)
        plain = failure(answer, str(self.reference))
        return self.error(state, plain.detail) if state else plain

    def error(self, state: RegistryState, detail: str = "") -> HostError:
        """The error for a state of the registry."""
        return refusals.error(state, str(self.reference), detail, login=bool(self._login))
