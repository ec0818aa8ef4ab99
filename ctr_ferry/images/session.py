"""One host's images, open for one command: what the host has, and names that are given there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctr_ferry import shell
from ctr_ferry.ctr import naming
from ctr_ferry.ctr.commands import KUBELETS, owner_of
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.listing import Image, Listing, parse_digests
from ctr_ferry.ctr.methods import Naming
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.verdict import judge, labels_gone, numbers, records_left, unproved
from ctr_ferry.errors import FerryError, GarbledAnswer, HostError, ImageNotFound
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.item import Item
from ctr_ferry.oci.reference import Reference, is_digest, is_glob
from ctr_ferry.oci.tree import DEEPEST
from ctr_ferry.shell import Answer, Script
from ctr_ferry.text import shown_name

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

_MOST_COMPARED = 10  # missing images for which close names are searched: that takes up to 0.1 s for each
BY_OTHERS = "somebody else gave that name meanwhile, with this digest"


class Session:
    """What a command does with the images of one host: in one namespace, or from one into another.

    Args:
        namespace: from the command's options; None means the inventory's.
        to_namespace: where names are given; None means the same namespace.
        owner: what labels, ingests and temporary names of ours begin with; None means the run's id.
        more: sh text of further steps for the probe's remote command, by name.

    Attributes:
        facts, answers: what the probe found, and the answers to the further steps.
        here, there: the images of the namespace, and of the namespace in which names are given.
        place: the namespace in which names are given, as scripts need it.

    Raises:
        FerryError: as `inspect.facts`.
    """

    def __init__(
        self,
        host: Host,
        namespace: str | None = None,
        to_namespace: str | None = None,
        *,
        owner: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        here = inspect.namespace(host, namespace)
        there = to_namespace or here
        facts, self.answers = inspect.survey(host, tuple(dict.fromkeys((here, there))), more or {})
        if isinstance(facts, HostError):
            raise facts
        self.host, self.facts = host, facts
        self.here, self.there = facts.listings[here], facts.listings[there]
        self.place = Place(
            facts.ctr,
            namespace=there,
            from_namespace=here,
            content_root=facts.content_root,
            owner=owner or owner_of(host.run_id),
            cri_managed=there == KUBELETS and facts.cri,
        )

    def find(self, ref: str) -> Image:
        """Returns the image that a user means; raises ImageNotFound, which says where it is instead."""
        if image := self.here.find(ref):
            return image
        raise self.not_found([ref])[0]

    def not_found(self, wanted: Iterable[str]) -> list[ImageNotFound]:
        """Returns one error for each missing image; it says where the image is instead. Takes one remote command."""
        here, missing = self.here, list(wanted)
        others = [name for name in self.facts.namespaces if name != here.namespace]
        answers = inspect.ask(self.host, {f"in-{n}": self.facts.ctr.images(name) for n, name in enumerate(others)})
        elsewhere = []
        for number, name in enumerate(others):
            with contextlib.suppress(GarbledAnswer):  # a namespace that cannot be read is left out
                elsewhere.append(Listing.parse(name, answers[f"in-{number}"].text))
        found = [(other.namespace, other.find_all(missing)) for other in elsewhere]
        compared = (here, *elsewhere) if len(missing) <= _MOST_COMPARED else ()
        errors = []
        for name in missing:
            having = tuple(other for other, images in found if images[name])
            hint = self._where_instead(name, having, compared)
            errors.append(error := ImageNotFound(f"no image {name} in namespace {here.namespace}", hint=hint))
            error.namespaces = having
            if not is_digest(name) and not Reference.of_name(name):
                error.detail = "this is no image reference, so only exactly this name is meant"
        return errors

    def passed_by(self, refs: Iterable[str]) -> str:
        """Says which names that globs fit are no references, so that no other place can have them; empty for none."""
        odd = dict.fromkeys(i.name for ref in refs if is_glob(ref) for i in self.here.match(ref) if not i.reference)
        if not odd:
            return ""
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        plain = next((name for name in odd if shown_name(name) == name), "NAME")
        words = shell.join(["fab", "-H", self.host.name, "retag", "--src", plain, "--dst"])
        return (
            f"passed by on {self.host.name}, as these names are no references: "
            f"{', '.join(map(shown_name, list(odd)[:3]))}{more}; to give one a name: {words} REF"
        )

    def _where_instead(self, wanted: str, having: Sequence[str], compared: Sequence[Listing]) -> str:
        """Says what to do about a missing image; the wrong namespace is the most common mistake.

        Args:
            having: the namespaces that have it.
            compared: where to look for close names.
        """
        here, sockets = self.here, self.facts.sockets
        if having:
            first = shell.join([having[0]])
            return (
                f"it is in namespace {' and '.join(map(shown_name, having))}: give that, or name it here: "
                f"fab -H HOST retag {shell.join(['--src', wanted, '--dst', wanted])} "
                f"--namespace {first} --to-namespace {shell.join([here.namespace])}"
            )
        close = [(name, listing.namespace) for listing in compared for name in listing.close_to(wanted)]
        if close:
            shown = (f"{shown_name(name)} in {shown_name(namespace)}" for name, namespace in close[:3])
            return f"close names: {', '.join(shown)}; see them: fab -H HOST find --match {shell.join([close[0][0]])}"
        if len(sockets) > 1:
            return (
                f"this host has several containerds ({', '.join(sockets)}), and the inventory may name another with "
                f"ctr_address; look into all: fab -H HOST find --match {shell.join([wanted])}"
            )
        return f"list what is there: fab -H HOST images --namespace {shell.join([here.namespace])}"

    def read(
        self, tops: Iterable[str], *, deep: bool, more: Mapping[str, str] | None = None, files: bool = False
    ) -> tuple[Content, dict[str, Answer]]:
        """Reads manifests and the visible digests, in one remote command; raises FerryError if they are not listed.

        Args:
            tops: digests of the images' targets.
            deep: whether to read the manifests of indexes as well, which may take a second remote command. Those of an
                index that does not tell all platforms are read in any case.
            more: further steps for the first remote command; their answers are among those returned.
            files: whether to read manifests from their files where that is possible, as for hundreds of them.
        """
        content = Content()
        digests = self.facts.ctr.digests(self.here.namespace)
        answers = self.fetch(tops, content, {"visible": digests, **(more or {})}, files=files)
        content.see(parse_digests(required(answers["visible"], "content ls").text.splitlines()))
        if files:  # another namespace may have them
            content.blobs = {digest: raw for digest, raw in content.blobs.items() if digest in content.visible}
        if deep or not content.tells_platforms:
            self.deepen(content, files=files)
        return content, answers

    def deepen(self, content: Content, *, files: bool = False) -> None:
        """Reads what is visible below all indexes in ``content``, in a remote command for each level of indexes.

        Configs are read where they alone tell a platform. Without anything to read it asks nothing.
        """
        tops = list(content.blobs)
        for _ in range(DEEPEST):
            if tops := content.unread(tops):
                self.fetch(tops, content, files=files)
        ctr, root = self.facts.ctr, self.facts.content_root if files else ""
        if configs := content.untold():
            documents = {digest: ctr.document(self.here.namespace, digest, root) for digest in configs}
            for digest, answer in inspect.ask(self.host, documents).items():
                content.take_config(digest, answer)

    def fetch(
        self, digests: Iterable[str], content: Content, more: Mapping[str, str] | None = None, *, files: bool = False
    ) -> dict[str, Answer]:
        """Reads manifests by digest into ``content`` and checks them, in one remote command, with further steps."""
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in content.blobs]
        ctr, root = self.facts.ctr, self.facts.content_root if files else ""
        steps = {f"get-{n}": ctr.document(self.here.namespace, each, root) for n, each in enumerate(wanted)}
        answers = inspect.ask(self.host, steps | dict(more or {}))
        for number, digest in enumerate(wanted):
            content.take(digest, answers[f"get-{number}"], self.host.name)
        return answers

    def give(
        self,
        items: Sequence[Item[Any]],
        namings: Sequence[Naming],
        explain: Callable[[int, Mapping[str, Answer]], FerryError | None] = lambda _number, _answers: None,
    ) -> None:
        """Gives names in one remote command, which also verifies them and rolls back those that it could not verify.

        Each item then has its result, by what the host lists. Raises FerryError where the host does not list the names.

        Args:
            namings: one for each item, in the same order.
            explain: takes the number of an item and the answers by step; returns what is wrong with the image besides
                its name, where the script could not verify it.
        """
        answers = self.host.ask(naming.script(self.place, namings))
        now = Listing.parse(self.there.namespace, required(answers["verify"], "verify").text)
        before, kept = naming.was(self.place, answers), numbers(answers["kept"])
        for number, (item, planned) in enumerate(zip(items, namings, strict=True)):
            name, digest = str(planned.name), planned.digest
            item.note_answers(number, answers)
            verdict = judge(
                name,
                digest,
                answers[f"name-{number}"],
                now.get(name),
                namespace=now.namespace,
                cri_managed=self.place.cri_managed,
                tolerant=naming.is_tolerant(self.place, planned),
                fresh=item.existing is None,
            )
            if error := verdict.error or (None if number in kept else explain(number, answers)):
                item.not_named(error)
            elif not verdict.ours:
                item.unchanged(BY_OTHERS)
            elif number not in kept:
                item.not_named(unproved(name, existed=item.existing is not None))
            elif item.existing:
                moved = before.get(name)
                item.result.previous_digest = moved.digest if moved and moved.digest != digest else ""
                item.add_note(labels_gone(moved, now.get(name)))

    def roll_back(self, name: str, digest: str) -> None:
        """Removes a new name that an attempt gave to an image of this digest, and CRI's records that came with it.

        A name that somebody else has moved to another digest meanwhile stays.
        """
        ctr, namespace = self.facts.ctr, self.there.namespace
        same = ctr.line(namespace, "images", "ls", "-q", f'name=="{name}",target.digest=="{digest}"')
        remove = f'[ -z "$({same})" ] || {ctr.remove(namespace, name)}'
        answers = self.host.ask(Script({"rm-name": remove, "after": ctr.images(namespace)}))
        after = Listing.parse(namespace, required(answers["after"], "after").text)
        if records := records_left([digest], self.there, after):
            self.host.ask(Script({f"rm-{n}": ctr.remove(namespace, record) for n, record in enumerate(records)}))
