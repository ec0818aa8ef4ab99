"""The probe: one script that finds a host's ctr, its containerd, the user's rights there, and its images. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr.commands import KUBELETS, Ctr
from ctr_ferry.ctr.failures import daemon_trouble, required
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.ctr.programs import COMMANDS, KUBELETS_OWN, KUBERNETES, SOCKETS
from ctr_ferry.ctr.version import Capabilities, DaemonCapabilities, Version
from ctr_ferry.errors import READ_LOG, AnswerTooLarge, CtrNotFound, DaemonUnreachable, GarbledAnswer, PermissionDenied
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.shell import Answer, Script
from ctr_ferry.text import printable, shown_name, tail

_IMPORT = re.compile(r"^[ \t]+import[ \t]", re.MULTILINE)  # a line in the help of `images`, with every version
MOST_NAMESPACES = 1000  # of one containerd; commands ask once or more for each
_ASK = 'ready && $ctr --address "$address"'
NAMESPACES = f"""namespaces=$({_ASK} namespaces ls -q) || dead=1
printf '%s\\n' "$namespaces"; [ -z "$dead" ]"""
_PLUGINS = f"plugins=$({_ASK} plugins ls -d)"
DEFAULT_ROOT, _CONTENT_PLUGIN = "/var/lib/containerd", "io.containerd.content.v1"


@dataclass(frozen=True, slots=True)
class Settings:
    """The inventory's ``ctr_command``, ``ctr_address`` (the socket) and so on; the probe finds what is None.

    Attributes:
        command: such as ``k3s ctr`` or a path.
        root: containerd's root directory.
        snapshotter: where import and pull unpack to.
    """

    command: str | None = None
    address: str | None = None
    namespace: str = KUBELETS
    root: str | None = None
    snapshotter: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the probe found.

    Attributes:
        sudo: whether sudo was used.
        client, server: versions as printed; the server's may be empty.
        sockets: paths of all containerd sockets of the host; of several paths to one socket, the one that is used.
        told: whether the inventory says which socket is used.
        namespaces: all namespaces of this containerd.
        listings: images by namespace, for the namespaces that were asked for.
        cri: whether the CRI plugin runs and labels names in k8s.io (from 1.2).
        content_root: the content store's directory.
    """

    sudo: bool
    ctr: Ctr
    client: str
    server: str
    sockets: tuple[str, ...]
    namespaces: tuple[str, ...]
    listings: Mapping[str, Listing]
    cri: bool
    content_root: str
    platform: Platform
    told: bool = False

    @property
    def others(self) -> tuple[str, ...]:
        """The sockets of further containerds."""
        return tuple(socket for socket in self.sockets if socket != self.ctr.address)

    @property
    def kubelets(self) -> str:
        """The socket of the containerd that kubelet probably uses; empty if there seems to be no kubelet."""
        own = next((socket for socket in self.sockets if socket in KUBELETS_OWN), "")
        return own or (self.ctr.address if self.cri else "")

    @property
    def chosen(self) -> str:
        """Says which of several containerds is used, unless there is one, or the inventory says it."""
        if self.told or not self.others:
            return ""
        which = "kubelet's" if self.ctr.address == self.kubelets else "the first"
        return (
            f"of {len(self.sockets)} containerds, {which} is used: {self.ctr.address}, not {' or '.join(self.others)} "
            "(ctr_address in the inventory chooses one)"
        )


def script(settings: Settings, namespaces: Sequence[str]) -> Script:
    """Builds the probe: sh text finds ctr and socket, and ctr tells the facts and the images of these namespaces.

    If containerd does not answer the first question, the probe asks no other.
    """
    steps = {
        "host": 'id -un; uname -m; echo "sudo=${SUDO_USER-}"; printf "%s\\n" "${sudo_said-}"',
        "ctr": '[ -z "$ctr" ] || version=$($ctr --version 2>/dev/null); echo "$ctr"; echo "$version"',
        "help": "case $version in *-beta*|*-alpha*|*-rc*) ;; *[0-9].[0-9]*) ! : ;; esac && "
        'for c in "" tag import; do $ctr images $c --help; done 2>&1',
        "sockets": 'seen_sockets; echo "use $address"',
        "namespaces": NAMESPACES,
        "version": f"{_ASK} version",
        "plugins": f"{_PLUGINS}; listed=$?; printf '%s\\n' \"$plugins\"; (exit $listed)",
    }
    for number, namespace in enumerate(namespaces):
        listing = shell.join(("--namespace", namespace, "images", "ls"))
        steps[f"images-{number}"] = f"{_ASK} {listing}"
    return Script(steps, prologue=prologue(settings))


def further(settings: Settings, steps: Mapping[str, str]) -> Script:
    """Builds a script of steps that could have followed the probe's, for a host that was probed already."""
    plugins = _PLUGINS if any("$plugins" in step for step in steps.values()) else ""
    return Script(steps, prologue=prologue(settings) + plugins)


def prologue(settings: Settings) -> str:
    """Builds sh text that finds ctr and socket, as ``$ctr`` and ``$address``, and defines ``ready``."""
    sockets = _sockets(settings)
    commands = [settings.command] if settings.command else COMMANDS
    return f"""
LC_ALL=C; export LC_ALL; set -f
find_ctr() {{
  set --
  case $address in
{_own_commands()}
  esac
  for place in {"" if settings.command else '"$@" '}{shell.join(commands)}; do
    command -v "${{place%% *}}" >/dev/null 2>&1 && {{ ctr=$place; return; }}
  done
}}
inode() {{ ls -diL "$1" | {{ read -r i _; echo "$i"; }}; }}
seen_sockets() {{
  for s in {shell.join(dict.fromkeys((*sockets, *SOCKETS)))}; do
    [ -S "$s" ] || continue
    [ "$s" = "$address" ] || [ "$(inode "$s")" != "$(inode "$address")" ] || continue
    if [ -r "$s" ] && [ -w "$s" ]; then echo "open $s"; else echo "closed $s"; fi
  done
}}
find_address() {{ for s in {shell.join(sockets)}; do [ -S "$s" ] && {{ address=$s; return; }}; done; }}
ready() {{ [ -z "$dead" ] && [ -n "$ctr" ] && [ -r "$address" ] && [ -w "$address" ]; }}
ctr=; address=; dead=; find_address; find_ctr
"""


def _own_commands() -> str:
    """The cases of the sockets whose ctr comes before containerd's own, as sh text: they set ``$@`` to its places."""
    own: dict[str, list[str]] = {}
    for each in KUBERNETES:
        own.setdefault(each.socket, []).extend(each.commands)
    return "\n".join(f"  {shell.join([socket])}) set -- {shell.join(places)};;" for socket, places in own.items())


def _sockets(settings: Settings) -> tuple[str, ...]:
    """The sockets of which the first that is there is used."""
    if settings.address:
        return (settings.address,)
    own = (each.socket for each in KUBERNETES if settings.command and each.word in settings.command)
    return tuple(dict.fromkeys((*own, *SOCKETS)))


def rights_check(settings: Settings) -> str:
    """Builds a sh test that fails if the login user may not write to the socket that is used; it has no quotes."""
    words = [shell.join([socket]) for socket in _sockets(settings)]
    return "".join(f"if [ -S {word} ]; then [ -w {word} ]; else " for word in words) + "false" + "; fi" * len(words)


def read(settings: Settings, namespaces: Sequence[str], answers: Mapping[str, Answer]) -> Facts:
    """Parses the answers to the probe.

    Raises CtrNotFound, DaemonUnreachable or PermissionDenied for what is missing, GarbledAnswer for a table of another
    shape, and AnswerTooLarge for too many namespaces.
    """
    user, machine, sudo = (*_lines(answers["host"]), "", "", "")[:3]
    command, printed = _ctr(settings, answers["ctr"])
    version = Version.parse(printed)
    capabilities = (
        Capabilities.of_help(answers["help"].text)
        if version is None or (version.prerelease and answers["help"].text)
        else Capabilities.of_version(version)
    )
    sockets = _lines(answers["sockets"])
    address = sockets.pop().partition(" ")[2] if sockets else ""
    _require_daemon(settings, sockets, address, user, answers)
    if version is None and not _IMPORT.search(answers["help"].text):
        raise CtrNotFound(
            f"{command!r} is no ctr",
            detail=tail(printed),
            hint="correct ctr_command of this host in the inventory",
        )
    server = _server(answers["version"].text)
    plugins = _parse_plugins(answers["plugins"].text)
    return Facts(
        sudo=sudo not in ("", "sudo="),
        ctr=Ctr(tuple(command.split()), address, capabilities, settings.snapshotter),
        client=version.text if version else tail(printed, lines=1),
        server=server,
        sockets=tuple(line.partition(" ")[2] for line in sockets),
        namespaces=_namespaces(answers["namespaces"]),
        listings={
            namespace: Listing.parse(namespace, required(answers[f"images-{number}"], f"namespace {namespace}").text)
            for number, namespace in enumerate(namespaces)
        },
        cri=DaemonCapabilities.of(server).cri_labels and any(map(_is_cri, plugins)),
        content_root=_content_root(settings, plugins),
        platform=Platform.of_machine(machine),
        told=bool(settings.address),
    )


def _namespaces(answer: Answer) -> tuple[str, ...]:
    found = tuple(_lines(answer))
    if len(found) > MOST_NAMESPACES:
        raise AnswerTooLarge(
            f"containerd there has {len(found)} namespaces; ctr-ferry reads at most {MOST_NAMESPACES}",
            hint="remove what nobody needs there; ctr lists them: fab -H HOST run 'ctr namespaces ls'",
        )
    return found


def _server(text: str) -> str:
    """The daemon's version in the output of ``ctr version``: the first one below ``Server:``."""
    below = text.partition("Server:\n")[2].split("\n", 1)[0].split()
    return tail(below[1]) if len(below) > 1 and below[0] == "Version:" else ""


def _content_root(settings: Settings, plugins: Sequence[Mapping[str, str]]) -> str:
    roots = [plugin["root"] for plugin in plugins if plugin["Type"] == _CONTENT_PLUGIN and "root" in plugin]
    return roots[0] if roots and not settings.root else content_root(settings.root or DEFAULT_ROOT)


def content_root(root: str) -> str:
    """Returns the content store's directory in containerd's root directory."""
    return f"{root}/{_CONTENT_PLUGIN}.content"


def _lines(answer: Answer) -> list[str]:
    return [line.strip() for line in answer.text.split("\n") if line.strip()]


def _ctr(settings: Settings, answer: Answer) -> tuple[str, str]:
    first, _, version = answer.text.partition("\n")
    command = first.strip()
    if not command:
        where = settings.command or "PATH, the usual places, k3s, RKE2, k0s or microk8s"
        raise CtrNotFound(
            f"no ctr found ({where})",
            hint="set ctr_command for this host in the inventory, to a path or to something like 'k3s ctr'",
        )
    if command not in ([settings.command.strip()] if settings.command else COMMANDS):
        raise GarbledAnswer(
            f"the host named a ctr that it was not asked for: {printable(command)[:200]!r}",
            hint="set ctr_command for this host in the inventory, to a path",
        )
    return command, version


def _require_daemon(
    settings: Settings, sockets: list[str], address: str, user: str, answers: Mapping[str, Answer]
) -> None:
    if not address:
        raise DaemonUnreachable(
            f"no containerd socket ({settings.address or ', '.join(SOCKETS)})",
            hint="start containerd on that host, or set ctr_address in the inventory",
        )
    if f"open {address}" not in sockets:
        raise PermissionDenied.by_sudo(
            f"{shown_name(user) or 'the login user'} may not use {address}, "
            "and sudo asks for a password or is not allowed",
            tail("\n".join(_lines(answers["host"])[3:])),
        )
    if not answers["namespaces"].ok:
        raise daemon_trouble(answers["namespaces"].stderr) or DaemonUnreachable(
            f"containerd at {address} does not answer",
            detail=tail(answers["namespaces"].stderr),
            hint=READ_LOG,
        )


def _is_cri(plugin: Mapping[str, str]) -> bool:
    """1.x has one grpc plugin ``cri``; 2.x also has ``io.containerd.cri.v1`` with ``images`` and ``runtime``."""
    kinds = {("io.containerd.grpc.v1", "cri"), ("io.containerd.cri.v1", "images")}
    return (plugin["Type"], plugin.get("ID")) in kinds and "Error" not in plugin


def _parse_plugins(text: str) -> list[dict[str, str]]:
    """Parses ``plugins ls -d``: one block of ``Key: value`` per plugin; exports, such as root, are indented."""
    plugins: list[dict[str, str]] = []
    for line in text.split("\n"):
        key, _, value = line.partition(":")
        words = line.split(None, 2)
        if key == "Type":
            plugins.append({key: value.strip()})
        elif plugins and key in ("ID", "Error"):
            plugins[-1][key] = value.strip()
        elif plugins and line[:1].isspace() and words[:1] == ["root"] != words:
            plugins[-1].setdefault("root", words[1])
    return plugins
