"""``needs``: which images hosts need, as a set that other commands take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.ctr import sandbox, usage
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import BadReference, FerryError, NothingFound
from ctr_ferry.images import inspect
from ctr_ferry.images.session import Session
from ctr_ferry.oci import image_set
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.text import names, shown_name

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host

_HEAD = "# Images that hosts and manifests need, written by `fab needs`."
_NO_NAME = "which has no name there that another host could take"
_MANIFEST, _CONTAINER, _SANDBOX = "manifest", "container", "sandbox"


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes:
        manifests: the images that the manifests name.
        out: the file that gets the set; None prints it.
    """

    manifests: tuple[str, ...]
    out: Path | None
    namespace: str | None


@dataclass(frozen=True, slots=True)
class NeededImage:
    """A name in its full form; ``by`` says what needs the image: a container, the sandbox of pods, a manifest."""

    reference: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeedsResult:
    """What one host needs.

    Attributes:
        unknown: what is needed, but has no name that another host could take, in words.
        out: the file that has the set of all hosts; empty if there is none.
    """

    namespace: str
    images: tuple[NeededImage, ...]
    unknown: tuple[str, ...] = ()
    out: str = ""
    status = Status.OK

    def lines(self) -> list[str]:
        """One line for each image."""
        return [*(f"{image.reference}  ({', '.join(image.by)})" for image in self.images), *self.unknown]


def parse(*, manifests: Sequence[str] | None = None, out: str | None = None, namespace: str | None = None) -> Request:
    """Makes a request of the options, and reads the manifests.

    Raises UsageError, which names the wrong option, or the file and line of a manifest.
    """
    named = [each for file in manifests or () for each in options.read_set(file, "--manifests")]
    file = options.file_to_write(out, "--out", _HEAD) if out else None
    full = dict.fromkeys(image_set.full_name(each) for each in named)
    return Request(tuple(full), file, options.namespace(namespace))


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """The set itself, as ``--set`` takes it; or, if a file has it, where it is and how many images it has."""
    found = dict(results(answers, NeedsResult))
    listed = _set(answers)
    count = sum(not line.startswith("#") for line in listed)
    if out := next((result.out for result in found.values() if result.out), ""):
        told = f"{out} has {count} image{'s' * (count != 1)} that {names(found)} need{'s' * (len(found) == 1)}"
        return Table((), (), (told, *_unknown(found)))
    return Table((), (), tuple(listed) if count else ())


@fleet_wide(
    parse,
    tabulate=tabulate,
    read_only=True,
    iterable=["manifests"],
    help={
        "manifests": "File whose images are needed as well: YAML of Kubernetes or Hauler, or a list; may be repeated.",
        "out": "The file to write the set to, for --set (default: print it).",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
    },
)
def needs(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """List the images that containers of the hosts use, their sandbox images, and those of manifests, as a set."""
    answers = dict(fleet.each(lambda host: _inspect(host, request)))
    found = dict(results(answers, NeedsResult))
    if found and not any(result.images for result in found.values()):
        raise NothingFound(
            f"no container of {names(found)} uses an image that has a name",
            detail="\n".join(each for result in found.values() for each in result.unknown),
            hint="add the manifests of what shall run there: --manifests FILE",
            result=answers,
        )
    if found and request.out and not fleet.dry_run:
        _write(request.out, answers)
        answers |= {host: replace(result, out=str(request.out)) for host, result in found.items()}
    return answers


def _set(answers: Mapping[str, Result | FerryError]) -> list[str]:
    """The lines of the set: comments, which say what it stands on and what it lacks, and each image once."""
    found = dict(results(answers, NeedsResult))
    lacking = [f"# {host} did not tell: {e.message}" for host, e in answers.items() if isinstance(e, FerryError)]
    images = sorted({image.reference for result in found.values() for image in result.images})
    return [_HEAD, f"# Hosts: {', '.join(found)}", *lacking, *_unknown(found), *images]


def _unknown(found: Mapping[str, NeedsResult]) -> list[str]:
    """What is needed and cannot be named, as comments; hosts that lack the same share one."""
    hosts = grouped((each, host) for host, result in found.items() for each in result.unknown)
    return [f"# {names(on, every=True)}: {each}" for each, on in hosts.items()]


def _write(file: Path, answers: Mapping[str, Result | FerryError]) -> None:
    from ctr_ferry.transfer.new_file import replacing

    with replacing(file) as opened:
        opened.write("".join(f"{line}\n" for line in _set(answers)).encode())


def _inspect(host: Host, request: Request) -> NeedsResult:
    """Asks a host what its containers use, in one remote command behind the probe."""
    session = Session(host, request.namespace)
    facts, here = session.facts, session.here
    steps = usage.questions(facts.ctr, here.namespace)
    if facts.cri:
        steps["sandbox"] = sandbox.question(facts.ctr, facts.content_root)
    answers = inspect.ask(host, steps)
    containers = usage.parse_containers(required(answers["containers"], f"containers of {here.namespace}").text)
    parents = usage.parse_parents(answers["snapshots"].text)  # fails under another snapshotter, and then tells nothing
    blobs = usage.parse_blobs(required(answers["content"], f"content of {here.namespace}").text)
    nameless = [container for container in containers if container.image != "-" and not _full_name(container.image)]
    using = usage.used(here, nameless, parents, blobs)
    needed = {name: [_CONTAINER] for container in containers if (name := _full_name(container.image))}
    unknown = []
    for container in nameless:
        targets = [digest for digest, users in using.items() if container.id in users]
        found = _names([image for digest in targets for image in here.by_digest(digest)])
        needed |= {name: [_CONTAINER] for name in found}
        unknown += (
            [] if found else [f"container {shown_name(container.id)} uses {shown_name(container.image)}, {_NO_NAME}"]
        )
    if facts.cri and (pause := _full_name(answers["sandbox"].text.strip())):
        needed.setdefault(pause, []).append(_SANDBOX)
    elif facts.cri:
        unknown.append("containerd's configuration names no sandbox image")
    for each in request.manifests:
        needed.setdefault(each, []).append(_MANIFEST)
    images = tuple(NeededImage(name, tuple(dict.fromkeys(by))) for name, by in sorted(needed.items()))
    return NeedsResult(here.namespace, images, tuple(unknown))


def _full_name(text: str) -> str:
    """The full name of an image; empty for the id of an image, and for text that is no reference."""
    try:
        return image_set.full_name(text)
    except BadReference:
        return ""


def _names(images: Iterable[Image]) -> list[str]:
    """The names of images, those with a tag if there are any: a name by digest is a second one of the same pull."""
    found = list(dict.fromkeys(filter(None, (_full_name(image.name) for image in images))))
    return [name for name in found if "@" not in name] or found
