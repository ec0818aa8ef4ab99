"""What push and pull share: they inspect a registry through a host, run ctr there, and tell what a failure meant."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.progress import Progress
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.errors import ContentCorrupt, ContentMissing, FerryError, HostError
from ctr_ferry.images.content import checked, described
from ctr_ferry.oci.descriptor import DOCUMENTS, Descriptor, Manifest, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.oci.registry import Registries, RegistryState, RegistryStateError
from ctr_ferry.oci.tree import DEEPEST
from ctr_ferry.registry import refusals
from ctr_ferry.registry.access import RegistryAccesses
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
    RegistryState.CLOSED: RegistryState.CLOSED.words,
}
_NO_LOGIN = "the registry does not tell it without a login"
_NOBODY_THERE = (RegistryState.UNRESOLVED, RegistryState.REFUSED, RegistryState.NO_ANSWER, RegistryState.NO_REGISTRY)
_LARGEST = 1 << 50  # bytes of a blob
_MOST_PLATFORMS = 100  # manifests of one index that are read to add up its size
_UNREADABLE = (ContentMissing, ContentCorrupt, ValueError, TypeError, AttributeError, RecursionError)  # of a manifest


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """What the registry has under a reference.

    Attributes:
        digest: what the reference points at; None where there is no such image, or the registry could not be asked.
        unknown: why the registry could not be asked; empty where it answered.
        present: bytes of the image to push that the repository has already; None where that was not asked.
        remedy: what lets the registry be asked.
    """

    digest: str | None
    unknown: str = ""
    present: int | None = None
    remedy: str = "let this host ask the registry"

    @property
    def doubt(self) -> str:
        """The note for a result that rests on no answer; empty where the registry answered."""
        return f"unverified: {self.unknown}" if self.unknown else ""

    @property
    def verified(self) -> str:
        """How a result that rests on this answer is verified: by ``digest``, or ``unverified``."""
        return "unverified" if self.unknown else "digest"


class RegistryTransfer:
    """One reference that one host pushes or pulls; ``seconds`` tells how long ctr took.

    Args:
        accesses: the host's ways to registries, which several references share.

    Raises:
        HostError: this host's ctr cannot work with that registry as the inventory describes it.
        UsageError: the login for the registry is missing, or cannot be used.
    """

    seconds = 0.0

    def __init__(self, session: Session, reference: Reference, accesses: RegistryAccesses) -> None:
        self.host, self.facts, self.reference = session.host, session.facts, reference
        self._asked_with_login = self._answers = False
        try:
            self.access = accesses.to(reference.domain)
        except RegistryStateError as error:
            raise refusals.error(error.state, str(reference), error.detail, login=False) from error

    def inspect(self, blobs: Mapping[str, int] | None = None) -> RemoteImage:
        """Asks the registry, through the host, what it has under the reference.

        Args:
            blobs: bytes by digest of the image to push. Of a large image, the registry is asked which blobs it has.

        Raises:
            RegistryError: the registry does not tell.
            Unreachable: the connection to the host broke.
        """
        pauses = refusals.Pauses()
        while True:
            try:
                with self.access.connection() as client:
                    if self.access.login:
                        client.log_in(self.reference.path)
                    digest = client.find(self.reference.path, self._there)
                    self._answers = True
                    return RemoteImage(digest, present=self._present(blobs or {}))
            except RegistryStateError as error:
                if unknown := _UNKNOWN.get(error.state):
                    if error.state is RegistryState.DENIED and not self.access.login:
                        return RemoteImage(None, _NO_LOGIN, remedy="set username and password_env in ctr_registries")
                    return RemoteImage(None, unknown)
                pause = pauses.after(error.state, error.wait)
                if pause is None:
                    raise self.error(error.state, error.detail) from error
            finally:
                self._asked_with_login = self.access.login is not None
            self.host.pause(pause)

    @property
    def _there(self) -> str:
        return str(self.reference.digest or self.reference.tag)

    def _present(self, blobs: Mapping[str, int]) -> int | None:
        if sum(blobs.values()) < _WORTH_ASKING:
            return None
        found = self.access.client.present(self.reference.path, blobs)
        return None if found is None else sum(blobs[digest] for digest in found)

    def described(self, digest: str) -> Descriptor:
        """Reads a manifest or index in the registry, and describes it by its own bytes.

        Raises as `inspect`, and ContentMissing or ContentCorrupt where the registry did not give that manifest.
        """
        try:
            with self.access.connection() as client:
                raw = client.read(self.reference.path, digest)
        except RegistryStateError as error:
            raise self.error(error.state, error.detail) from error
        return described(digest, Answer(0, raw, ""), self.access.registry.name)

    def contents(self, platform: Platform | None) -> list[Descriptor] | None:
        """All blobs of the image in the registry; None where its manifests cannot be read, or make no sense.

        Args:
            platform: the platform that is wanted; None is all of them.
        """
        try:
            with self.access.connection():
                top = self._manifest(self._there)
                manifests, level = [top], [top]
                for _ in range(DEEPEST):
                    children = [child for each in level for child in each.children if child.media_type in DOCUMENTS]
                    wanted = [c.digest for c in children if not c.platform or platform in (None, c.platform)]
                    level = [self._manifest(digest) for digest in wanted[:_MOST_PLATFORMS]]
                    manifests += level
                blobs = {blob.digest: blob for each in manifests for blob in each.blobs}
                return list(blobs.values()) if all(0 <= blob.size < _LARGEST for blob in blobs.values()) else None
        except (RegistryStateError, *_UNREADABLE):
            return None

    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that the image's index lists; none where it is no index, or does not tell all of them."""
        try:
            with self.access.connection():
                told = [child.platform for child in self._manifest(self._there).children]
        except (RegistryStateError, *_UNREADABLE):
            return ()
        return tuple(each for each in told if each) if all(told) else ()

    def _manifest(self, reference: str) -> Manifest:
        raw = self.access.client.read(self.reference.path, reference)
        if is_digest(reference):
            checked(reference, Answer(0, raw, ""), self.access.registry.name)
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
        the registry is inspected again with the login. A fault that may pass (`refusals.PASSING`) gets more tries.

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
        pauses, began = refusals.Pauses(), time.monotonic()
        answers: dict[str, Answer] = {}
        while True:
            if self.access.login and not self._asked_with_login and is_done(self.inspect(sizes)):
                return answers
            answers = self._once(script, sizes)
            self.seconds = round(time.monotonic() - began, 3)
            state = self.meaning(answers[step])
            if self.access.has_another_way(state, answers[step].stderr):
                if step == "push":
                    self._refuse_plain_tokens()
                continue
            pause = pauses.after(state)
            if pause is None:
                return answers
            self.host.pause(pause)

    def _refuse_plain_tokens(self) -> None:
        """Raises RegistryError where ctr would send the login to a token service without TLS, as far as one can ask."""
        try:
            with self.access.connection() as client:
                client.refuse_plain_tokens_of_pushes(self.reference.path)
        except RegistryStateError as error:
            if error.state is RegistryState.PLAIN_TOKENS:
                raise self.error(error.state, error.detail) from error

    def _once(self, script: Callable[[Route], Script], sizes: Mapping[str, int]) -> dict[str, Answer]:
        needs_terminal = self.access.login is not None or not self.facts.ctr.capabilities.piped
        limit = self.host.target.limits.command
        with self.host.terminal(limit) if needs_terminal else nullcontext() as terminal:
            listener = TransferListener(self, Progress(sizes), terminal, self.access.login)
            route = replace(self.access.route, terminal=terminal.device if terminal else None)
            return self.host.ask(script(route), listener=listener)

    def meaning(self, answer: Answer) -> RegistryState | None:
        """What ctr's answer means for the registry; None where ctr succeeded, or failed for another reason."""
        registry = self.access.registry
        return None if answer.ok else refusals.meaning(answer.stderr, registry, answers=self._answers)

    def failure(self, answer: Answer) -> FerryError:
        """The error for a push or pull that failed."""
        state = self.meaning(answer)
        plain = failure(answer, str(self.reference))
        return self.error(state, plain.detail) if state else plain

    def error(self, state: RegistryState, detail: str = "") -> HostError:
        """The error for a state of the registry."""
        detail = "\n".join(filter(None, (detail, self.access.way)))
        error = refusals.error(state, str(self.reference), detail, login=bool(self.access.login))
        meant = self.host.target.variables_of(Registries).instead_of(self.reference.domain)
        if meant and state in _NOBODY_THERE:
            error.hint = f"did you mean {meant}, which ctr_registries has? If not, {error.hint}"
        return error
