"""``save``: writes images of a host to an archive on the control machine that ctr, skopeo and docker read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import CannotWrite, FerryError, ImageNotFound, NotStarted, SourceLost, UsageError
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import is_glob, pinned
from ctr_ferry.report.outcome import Result, Status
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.ssh.local_path import local_path
from ctr_ferry.text import size

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.transfer.archive_writer import SavedImage


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, checked before any host is touched.

    Attributes:
        out: the archive, or the ``folder`` that gets an archive for each host.
        platform: the platform whose manifest is saved; None means all that are there.
    """

    refs: tuple[str, ...]
    out: Path
    folder: bool
    namespace: str | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    force: bool = False

    def file(self, host: str) -> Path:
        """Returns the archive of a host."""
        return self.out / f"{host.replace('/', '_')}.tar" if self.folder else self.out


def parse(
    *,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    out: str | None = None,
    namespace: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    force: bool = False,
) -> Request:
    """Turns the options into a request; raises UsageError or BadReference where an option is wrong."""
    refs = options.references(ref, set_)
    if not (refs and out):
        raise UsageError(
            "save needs images with --ref REF or --set FILE, and --out FILE or DIR",
            hint="fab -H HOST save --ref r.example/app:1 --out app.tar",
        )
    file = local_path(out)
    folder = file.is_dir() or out.endswith("/")
    if not (file if file.is_dir() else file.parent).is_dir():
        raise UsageError(
            f"--out {out}: there is no folder {file.parent}",
            hint=f"make it first: mkdir -p {shell.join([str(file.parent)])}",
        )
    return Request(
        refs=refs,
        out=file,
        folder=folder,
        namespace=options.namespace(namespace),
        platform=options.platform(platform, every=all_platforms),
        all_platforms=all_platforms,
        force=force,
    )


@dataclass(frozen=True, slots=True)
class SaveResult:
    """One host's archive: its size in bytes, and its SHA-256 in hex, which is empty in a dry run; and notes."""

    namespace: str
    file: str
    status: Status
    size: int
    sha256: str
    images: tuple[SavedImage, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Returns a line for the archive, and one for each image below."""
        state = "  it has these already" if self.status is Status.UNCHANGED else ""
        return [f"{self.file}  {size(self.size)}{state}", *map(_image_line, self.images), *self.notes]


def _image_line(image: SavedImage) -> str:
    platforms = f"  {', '.join(image.platforms)}" if image.platforms else ""
    return f"  {image.reference} {image.digest}{platforms}"


def _images(session: Session, refs: Sequence[str]) -> list[Image]:
    """Returns the images that are asked for, each once, under the names that the archive gives them."""
    meant = session.here.meant(refs)
    if absent := [ref for ref, images in meant.items() if not images]:
        raise _absent(session, absent, len(refs))
    found = [replace(image, name=_name(ref, image)) for ref, images in meant.items() for image in images]
    return list({image.name: image for image in found}.values())


def _name(ref: str, image: Image) -> str:
    """The name in the archive: kubelet's for what is asked for by repository and digest, else the image's own."""
    name = pinned(ref) or image.reference
    return str(name.for_cri) if name and name.digest else image.name


def _absent(session: Session, absent: Sequence[str], asked: int) -> ImageNotFound:
    """The error for images that are not there, of so many that were asked for."""
    namespace = session.here.namespace
    if len(absent) > 1:
        return ImageNotFound(
            f"{len(absent)} of {asked} images are not in namespace {namespace}",
            detail="\n".join(absent),
            hint=f"bring them there first: fab -H HOST copy --from any {_refs(absent)}",
        )
    if is_glob(absent[0]):
        hint = "a glob fits whole names: fab -H HOST images"
        odd = session.passed_by(absent)
        return ImageNotFound(f"no image of namespace {namespace} fits {absent[0]}", detail=odd, hint=hint)
    return session.not_found(absent)[0]


def _refs(refs: Sequence[str]) -> str:
    return shell.join([word for ref in refs for word in ("--ref", ref)])


def _save(host: Host, request: Request) -> SaveResult:
    """Plans an archive, and writes it unless the file has the same content already."""
    from ctr_ferry.transfer import archive_writer
    from ctr_ferry.transfer.fan_out import checked
    from ctr_ferry.transfer.sources import HostSource, Sources

    session = Session(host, request.namespace)
    images = _images(session, request.refs)
    content, _ = session.read([image.digest for image in images], deep=True)
    planned = archive_writer.plan(
        images, content, session.facts.platform, request.platform, every=request.all_platforms
    )
    file = request.file(host.name)
    result = SaveResult(
        namespace=session.here.namespace,
        file=str(file),
        status=Status.CHANGED,
        size=planned.size,
        sha256="",
        images=planned.images,
        notes=tuple(filter(None, [session.passed_by(request.refs)])),
    )
    if file.exists() and not request.force:
        if archive_writer.has_all(file, planned):
            sha256 = "" if host.dry_run else archive_writer.sha256_of(file)
            return replace(result, status=Status.UNCHANGED, sha256=sha256)
        raise CannotWrite(
            f"{file} exists, and has something else", hint="choose another --out, or replace it with --force"
        )
    if host.dry_run:
        return result
    source = Sources([(HostSource(session), content.visible)])
    source.remedy = f"the image is damaged there: save it from another host: fab -H all find {_refs(request.refs)}"
    blobs = ((blob, checked(blob, chunks, source)) for blob, chunks in source.read(planned.blobs))
    try:
        return replace(result, sha256=archive_writer.write(planned, file, blobs, host.moved))
    except SourceLost as error:  # the source is the host itself
        raise (error.__cause__ if isinstance(error.__cause__, FerryError) else error) from None


@fleet_wide(
    parse,
    read_only=True,
    iterable=["ref", "set_"],
    help={
        "ref": "An image: a name, its short form, a digest, or a glob on whole names; may be repeated.",
        "set_": options.SET_HELP,
        "out": "The archive to write, or a folder, which gets HOST.tar for each host.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "platform": "Save only this platform's manifest of a multi-platform image.",
        "all_platforms": "Insist that all platforms are there (default: those that are).",
        "force": "Write over an archive that has something else.",
    },
)
def save(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Write images of a host to an archive on the control machine, for ctr, skopeo and docker load."""
    if not request.folder and len(fleet.hosts) > 1:
        raise UsageError(
            f"--out {request.out} is one file, and there are {len(fleet.hosts)} hosts",
            hint=f"give one host, or a folder, such as --out {request.out}/",
            result=dict.fromkeys(fleet.hosts, NotStarted("nothing was started")),
        )
    return dict(fleet.each(lambda host: _save(host, request)))
