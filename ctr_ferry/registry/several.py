"""Several images of one host, on their way to or from registries: each of them ends by itself, well or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ctr_ferry.errors import (
    FerryError,
    Interrupted,
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnauthorized,
    RepositoryNotFound,
    Unreachable,
)
from ctr_ferry.images.item import settle
from ctr_ferry.registry.results import (
    PulledImage,
    PushedImage,
    RegistryTransferResult,
    TransferSetResult,
    image_of,
)
from ctr_ferry.report.outcome import Status

if TYPE_CHECKING:
    from ctr_ferry.images.session import Session
    from ctr_ferry.registry.push_pull import RegistryTransfer

_ENOUGH = 3  # images in a row that a registry fails for; then it is not asked for others
_OF_THE_IMAGE = (RegistryDenied, RegistryRefused, RepositoryNotFound)  # errors that say nothing about other images


def as_set(result: RegistryTransferResult | TransferSetResult) -> TransferSetResult:
    """A result as that of a set."""
    return result if isinstance(result, TransferSetResult) else TransferSetResult.of(result)


class Job(Protocol):
    """What moves one image; its registry transfer is known from the beginning."""

    transfer: RegistryTransfer


_J = TypeVar("_J", bound=Job)


@dataclass(slots=True)
class TransferItem(Generic[_J]):
    """One image of several. It has ended if it has a status other than ``skipped``.

    Attributes:
        image: what is known of it so far.
        job: what moves it; None where that could not begin.
        error: why it failed.
    """

    image: PulledImage | PushedImage
    job: _J | None = None
    error: FerryError | None = None

    def end(self, result: RegistryTransferResult) -> None:
        """Takes the result."""
        self.image = image_of(result)

    def fail(self, error: FerryError) -> None:
        """Takes the error; what was done before it stays known."""
        self.error, self.image = error, image_of(self.image, error)


class TransferSet(Generic[_J]):
    """The images of one host that a command moves, in the order of the command line.

    They share the session, and for each registry its connection, its login and what was found out about it.

    Args:
        images: one for each item.
    """

    def __init__(self, session: Session, images: Iterable[PulledImage | PushedImage], *, pushes: bool = False) -> None:
        from ctr_ferry.registry.access import RegistryAccesses

        self.session, self.accesses = session, RegistryAccesses(session, pushes=pushes)
        self.items: list[TransferItem[_J]] = [TransferItem(image) for image in images]

    @property
    def jobs(self) -> Iterator[tuple[TransferItem[_J], _J]]:
        """The items that have begun and not failed."""
        return ((item, item.job) for item in self.items if item.job and not item.error)

    @property
    def pending(self) -> list[tuple[TransferItem[_J], _J]]:
        """The items that have begun and not ended."""
        return [(item, job) for item, job in self.jobs if item.image.status is Status.SKIPPED]

    def each(
        self,
        work: Callable[[_J], RegistryTransferResult | None],
        items: Iterable[tuple[TransferItem[_J], _J]] | None = None,
    ) -> None:
        """Does ``work`` for each item, by default for those that have not ended. A result or an error ends an item.

        Raises:
            Unreachable, Interrupted: nothing more can be done on this host.
        """
        for item, job in self.pending if items is None else items:
            trouble = job.transfer.access.trouble
            if len(trouble) >= _ENOUGH:
                item.fail(_not_asked(job.transfer, trouble[-1]))
                continue
            try:
                if result := work(job):
                    item.end(result)
                trouble.clear()
            except (Unreachable, Interrupted):
                raise
            except FerryError as error:
                item.fail(error)
                self._note(job.transfer, error)

    def _note(self, transfer: RegistryTransfer, error: FerryError) -> None:
        """Remembers what may be wrong with the registry as a whole."""
        trouble = transfer.access.trouble
        if not isinstance(error, RegistryError) or isinstance(error, _OF_THE_IMAGE):
            trouble.clear()
            return
        trouble.append(error)
        if isinstance(error, RegistryUnauthorized) and transfer.access.login:
            trouble += [error] * _ENOUGH  # some servers lock a user after a few wrong passwords

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """A block of work: connections to registries are kept, and an error that ends the block has the result."""
        try:
            with self.accesses.kept():
                yield
        except (Unreachable, Interrupted) as error:
            error.result = self.result()
            raise

    def result(self) -> TransferSetResult:
        """The result by what is known so far."""
        return TransferSetResult(
            namespace=self.session.here.namespace,
            ctr=self.session.facts.client,
            images=tuple(item.image for item in self.items),
        )

    def settled(self, what: str) -> TransferSetResult:
        """The result; raises SomeFailed, with the result, if so many images had ``what`` happen."""
        errors = [item.error for item in self.items if item.error]
        again = "what was done for the other images stays; follow the hint of each, then run the command again"
        result = self.result()
        if errors and len(self.items) == 1:
            errors[0].result = result
        settle(result, len(self.items), errors, what, again)
        return result


def _not_asked(transfer: RegistryTransfer, last: RegistryError) -> RegistryError:
    """The error of an image whose registry has failed for others; the same kind as the last of them."""
    return type(last)(
        f"registry of {transfer.reference}: not asked, since it failed for other images of this run",
        detail="\n".join(filter(None, (last.message, last.detail))),
        hint=last.hint,
    )
