"""What a pull is to do on one host, the script that does it, and what the host must have afterwards. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ctr_ferry.ctr import checks, methods, naming, push_pull, roll_back
from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.methods import ByIndex
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.ctr.roll_back import Given
from ctr_ferry.errors import READ_LOG, FerryError, NotUnpacked, PlatformMissing
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import INDEXES, Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Answer, Script


@dataclass(frozen=True, slots=True)
class Move:
    """What a name will point at, by the registry, and what it points at before; None where that cannot be read."""

    target: Descriptor
    old: Descriptor | None


@dataclass(frozen=True, slots=True)
class PullPlan:
    """One image that a host's ctr pulls.

    Attributes:
        reference: the name.
        wanted: the digest that the name must point at; None where neither the user nor the registry gave one.
        existing: what the host has under the name before the pull; None where the host does not have the name.
        platform: the platform that the user asked for; None is the host's own.
        artifact: whether it is known to be an artifact, which is not unpacked.
        move: how the name is moved; None where no name is moved, or until that is settled.
    """

    place: Place
    reference: Reference
    wanted: str | None
    existing: Image | None
    platform: Platform | None
    all_platforms: bool
    host_platform: Platform
    move: Move | None = None
    artifact: bool = False

    @property
    def name(self) -> str:
        """The name as containerd writes it."""
        return str(self.reference)

    @property
    def replaced(self) -> Image | None:
        """What the host has under the name, where that is another digest than the wanted one; else None."""
        return self.existing if self.existing and self.existing.digest != self.wanted else None

    @property
    def method(self) -> str:
        """``pull``, or ``stage`` where the name is moved only after another name was pulled."""
        return "stage" if self.replaced else "pull"

    @property
    def beyond_host_platform(self) -> bool:
        """Whether other platforms than the host's are asked for. ``ctr images check`` does not cover them."""
        return self.all_platforms or self.platform not in (None, self.host_platform)

    def only(self, target: Descriptor) -> Platform | None:
        """The one platform of an index that is pulled, where it is not the host's."""
        return self.platform if target.is_index and self.platform != self.host_platform else None

    @property
    def stage(self) -> Reference | None:
        """A name of this run alone, with the wanted digest. Neither a moving tag nor another pull can change it.

        The script pulls the stage first, and gives the wanted name once the stage is whole: what kubelet gives
        meanwhile is then not taken for the script's own. None where that is not
        possible: then the script pulls the wanted name itself.
        """
        can_follow = self.place.ctr.capabilities.tag or self.replaced
        if not (self.wanted and can_follow):
            return None
        return replace(self.reference, tag=self.place.owner, digest=self.wanted)

    def script(self, route: Route) -> Script:
        """The script of the pull.

        Its steps: ``pull``, ``labels`` (gives back labels that are gone), ``was`` (the name before it was moved),
        ``verify`` (the names afterwards), ``check`` (``images check``), ``kept`` (whether the name proved right),
        ``back`` (the name, moved back where it was moved and did not prove right), ``top`` (the manifest or index) and
        ``visible`` (all digests that the namespace sees). Its clean-up removes every name that did not prove right.
        """
        ctr, namespace = self.place.ctr, self.place.namespace
        given, records = self._given, self.place.cri_managed
        undo = roll_back.undo(self.place, [given], records=records)
        back = {}
        if self.replaced and self.move and self.move.old:
            back["back"] = roll_back.back(self.place, given, self._back(self.replaced, self.move.old))
        moment = "" if ctr.capabilities.tag else f"{naming.MOMENT}\n"
        labels = self.existing.others_labels if self.existing else ()
        keep = [
            roll_back.list_labelled(self.place, [self.name]),
            naming.keep_labels(self.place, self.reference, labels),
        ]
        return Script(
            {
                "pull": self._pull(route),
                **({"labels": "\n".join(keep)} if labels else {}),
                **({"was": "printf '%s\\n' \"$was\""} if self.replaced else {}),
                "verify": moment + naming.verify(self.place, roll_back.names([given])),
                "check": naming.check(self.place, self.name),
                "kept": roll_back.kept(self.place, [given]),
                **back,
                "top": ctr.document(namespace, self.wanted) if self.wanted else "false",
                "visible": ctr.digests(namespace),
            },
            roll_back.remember_records(self.place) if records else "",
            cleanup=f"{undo}\n{route.cleanup}",
        )

    def _pull(self, route: Route) -> str:
        ctr, namespace, stage = self.place.ctr, self.place.namespace, self.stage
        name, every = str(stage or self.name), self.all_platforms
        if self.artifact:
            pull = push_pull.fetch(ctr, namespace, route, name)
        else:
            pull = push_pull.pull(ctr, namespace, route, name, platform=self.platform, all_platforms=every)
        existing = ctr.existing(namespace, self.name)
        was = f"was=$({ctr.images(namespace, self.name)})\n" if self.replaced else ""
        begin = "staged_0=1" if stage else f'[ -n "$({existing})" ] || began_0=1'
        follow = f" && {self._follow(stage)}" if stage else ""
        return f"{was}{begin}\n{{ {pull}; }}{follow}\nnamed_0=$?; (exit $named_0)"

    @property
    def _given(self) -> Given:
        stage, whole = self.stage, not (self.beyond_host_platform or self.artifact)
        # Without a stage, kubelet may pull the same image by the same name at the same time.
        shared = checks.command(self.place.ctr, self.place.namespace, self.name) if whole and not stage else ""
        return Given(
            number=0,
            name=self.name,
            digest=self.wanted,
            stage=str(stage or ""),
            complete=whole,
            unpacked=whole,
            shared=shared,
        )

    def _follow(self, stage: Reference) -> str:
        """Gives the wanted name to what the stage points at, which is whole by then; a name that is right stays."""
        if self.existing and not self.replaced:
            return ":"
        if not self.move:
            return methods.by_tag(self.place, self.place.namespace, str(stage), self.reference, 0)
        target = self.move.target
        by_index = ByIndex(
            name=self.reference,
            target=target,
            replaces=True,
            whole=self.all_platforms,
            foreign=self.platform not in (None, self.host_platform) and not target.is_index,
            only=self.only(target),
        )
        begun = ["moved_0=1"] if self.move.old else []
        steps = [*begun, by_index.by_index(self.place, 0)]
        if target.is_index and not self.all_platforms:
            steps.insert(0, methods.keep_children(self.place, target.digest))
        return " &&\n".join(steps)

    def _back(self, existing: Image, old: Descriptor) -> str:
        """Lets the name point at what it pointed at before, if that is still there."""
        by_index = ByIndex(
            name=self.reference,
            target=old,
            replaces=True,
            foreign=not old.is_index and not existing.is_for(self.host_platform),
        )
        steps = [f"{self.place.ctr.content(self.place.namespace, old.digest)} >/dev/null"]
        if old.is_index:
            steps.append(methods.keep_children(self.place, old.digest))
        return " &&\n".join([*steps, by_index.by_index(self.place, 0)])

    def size(self, image: Image, content: Content) -> int | None:
        """Bytes of all blobs that the platforms asked for need; None where not all manifests were read.

        Raises FerryError where the host has a manifest that cannot be read.

        Args:
            image: the name as the host lists it.
            content: the manifests that were read, and all digests that the namespace sees.
        """
        blobs = self._needed(image, content)
        is_read = len(blobs) > 1 and (self.beyond_host_platform or not blobs[0].is_index)
        return sum(blob.size for blob in blobs) if is_read else None

    def shortcoming(self, image: Image, content: Content, check: Answer) -> FerryError | None:
        """Why the image is not whole, unpacked (by ``images check``) and for the platform wanted; None where it is."""
        wanted = self.platform
        other = wanted and image.listed and not any(wanted.takes(each) for each in image.listed)
        if other and image.media_type not in INDEXES:
            return PlatformMissing(
                f"{self.name} is for {image.platforms}, not for {wanted}", hint="leave --platform out"
            )
        try:
            blobs = self._needed(image, content)
            artifact = content.is_artifact(Descriptor(image.media_type, image.digest, 0))
        except FerryError as error:  # the host has the manifest, and it cannot be read
            return error
        if self.beyond_host_platform or artifact:
            missing = [blob.digest for blob in blobs if blob.digest not in content.visible]
            return content_missing(self.name, "\n".join(missing)) if missing else None
        state = checks.parse_checks(check.text).get(self.name, checks.UNKNOWN)
        if not state.complete:
            return content_missing(self.name, state.status)
        if not state.unpacked:
            return NotUnpacked(
                f"{self.name} in namespace {self.place.namespace} is whole, but not unpacked",
                hint=READ_LOG,
            )
        return None

    def _needed(self, image: Image, content: Content) -> list[Descriptor]:
        top = Descriptor(image.media_type, image.digest, len(content.blobs.get(image.digest, b"")))
        if self.all_platforms:
            return list(content.below(top).values())
        return content.needed(top, self.platform or self.host_platform)
