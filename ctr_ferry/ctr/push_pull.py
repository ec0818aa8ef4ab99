"""``images push`` and ``images pull`` for each ctr, measured on 1.0.3 to 2.3.4. Pure.

A ctr that has ``--local`` gets it. Then the client and not the daemon does the transfer, with the certificates, the
proxy and the password of this one command.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr import naming, programs, roll_back
from ctr_ferry.ctr.commands import CRI_MANAGED, Ctr
from ctr_ferry.ctr.methods import ByIndex
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.progress import METER
from ctr_ferry.errors import MethodUnsupported
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Registry

BUNDLES = (  # the places that Go searches (crypto/x509, root_linux.go)
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
SYSTEM_BUNDLE = f'for f in {shell.join(BUNDLES)}; do [ -s "$f" ] && {{ cat "$f"; break; }}; done'
MOST_TYPED = 4095  # bytes of a password; Linux cuts longer lines of a terminal, and ctr reads no more of one


@dataclass(frozen=True, slots=True)
class Route:
    """How one host's ctr or curl gets to a registry.

    Attributes:
        username: the user whose password ctr asks for; None is no login.
        authorities: certificates, PEM, that count besides those that the host trusts.
        exclusive: whether ``authorities`` alone count, since a password is sent.
        proxy: ``http://host:port``.
        owner: the run's id; the name of the file with the certificates begins with it.
        terminal: the device on which the login is typed; None where none is asked for.
        hosts_dir: the host's folder with hosts.toml files; empty for none. With a login, ctr gets none: it would show
            the login to every server that such a file names.
    """

    registry: Registry
    username: str | None = None
    authorities: bytes = b""
    exclusive: bool = False
    proxy: str | None = None
    owner: str = ""
    terminal: str | None = None
    hosts_dir: str = ""

    @property
    def prepare(self) -> str:
        """What goes before the command: writes the certificates to a file on the host, ``$authorities``; as sh text."""
        if not self.authorities:
            return ""
        ours = shell.printf(self.authorities)
        pems = ours if self.exclusive else f"{{ {SYSTEM_BUNDLE}; echo; {ours}; }}"
        return f'authorities=$(umask 077; {programs.temporary_file(self.owner)}) && {pems} >"$authorities" &&\n'

    @property
    def cleanup(self) -> str:
        """Removes the file with the certificates; as sh text."""
        return '[ -z "$authorities" ] || rm -f "$authorities"' if self.authorities else ""


def push(
    ctr: Ctr,
    namespace: str,
    route: Route,
    names: tuple[str, str],
    *,
    platform: Platform | None = None,
    foreign_layers: bool = False,
) -> str:
    """``images push``, as sh text: ``names`` are the one in the registry, and the one on the host.

    With a platform (from 1.4 on), only that manifest of an index is pushed. From 1.6 on, foreign layers are pushed only
    where that is asked for.
    """
    flags = [f"--platform={platform}"] if platform else []
    if foreign_layers and ctr.capabilities.leaves_foreign:
        flags.append("--allow-non-distributable-blobs")
    line = _command(ctr, namespace, route, "push", *flags, *names)
    return route.prepare + (line if ctr.capabilities.tells_layers else _metered(line))


def stage(place: Place, image: str, name: Reference, child: Descriptor, *, foreign: bool) -> tuple[str, str]:
    """The step that gives ``child``, one manifest of an index, a temporary name, and the clean-up.

    Up to 1.3, ctr cannot push one platform in another way: ``push --manifest`` sends the manifest with a length of 0 on
    all versions, and registries refuse that. CRI's record of an image follows the latest name. So in a namespace of
    CRI, the clean-up removes CRI's label from the image's own name (``image``), and CRI sets the label again. A
    ``foreign`` manifest is for another platform than the host's.
    """
    ctr, namespace = place.ctr, place.namespace
    named = ByIndex(name=name, target=child, replaces=True, foreign=foreign)
    cleanup = f"{ctr.remove(namespace, str(name))} >/dev/null 2>&1"
    if place.cri_managed:
        # If a name is removed while CRI labels it, CRI creates the name again.
        labelled = roll_back.list_labelled(place, [str(name)])
        cleanup = f"{{ {labelled}\n}} 2>/dev/null\n{cleanup}"
        label, _, _ = CRI_MANAGED.partition("=")
        again = f"{ctr.relabel(namespace, image, f'{label}=')} >/dev/null 2>&1"
        cleanup += f"\n{again} && {{ {naming.verify(place, [image])}; }} >/dev/null 2>&1"
    return named.by_index(place, 0), cleanup


def pull(
    ctr: Ctr,
    namespace: str,
    route: Route,
    name: str,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
) -> str:
    """``images pull``, as sh text: of one platform, by default the host's own, or of all."""
    flags = [f"--platform={platform}"] if platform else []
    flags += ["--all-platforms"] if all_platforms else []
    return route.prepare + _command(ctr, namespace, route, "pull", *ctr.unpacking, *flags, name)


def fetch(ctr: Ctr, namespace: str, route: Route, name: str) -> str:
    """``content fetch``, as sh text: pulls and names without unpacking, as an artifact needs it."""
    return route.prepare + _command(ctr, namespace, route, "fetch", name)


def _metered(line: str) -> str:
    """Runs a ctr that prints little progress. Once a second, the step prints how many bytes ctr has read.

    (``/proc/PID/io``. The bytes that ctr has written would include its own progress bars.)
    """
    return f"""{{ {line} & ctr_pid=$!
( trap 'kill -s KILL $!; exit' TERM
while sleep 1 >/dev/null 2>&1 & wait $!; do sed -n 's/^rchar:/{METER}/p' /proc/$ctr_pid/io 2>/dev/null || exit; done
) & meter=$!
wait $ctr_pid; ctr_exit=$?; kill $meter 2>/dev/null; (exit $ctr_exit); }}"""


def _command(ctr: Ctr, namespace: str, route: Route, verb: str, *words: str) -> str:
    registry = route.registry
    flags = ["--local"] if ctr.capabilities.local and verb != "fetch" else []
    if registry.scheme == "http":
        flags.append("--plain-http")
    elif registry.skip_verify:
        flags.append("--skip-verify")
    if route.username:
        flags += ["--user", route.username]
    elif route.hosts_dir:
        flags += ["--hosts-dir", route.hosts_dir]
    line = ctr.line(namespace, "content" if verb == "fetch" else "images", verb, *flags, *words)
    if route.proxy:
        line = f"{shell.join(['env', f'HTTP_PROXY={route.proxy}', f'HTTPS_PROXY={route.proxy}'])} {line}"
    if route.terminal:
        line = f"{line} <{shell.join([route.terminal])}"
    if not route.authorities:
        return line
    # SSL_CERT_FILE replaces the system's bundle, but not its folders of certificates.
    folder = "SSL_CERT_DIR=/dev/null " if route.exclusive else ""
    return f'SSL_CERT_FILE="$authorities" {folder}{line}'


def refuse(ctr: Ctr, client: str, route: Route) -> None:
    """Raises MethodUnsupported for a registry whose settings this ctr, of version ``client``, would ignore silently."""
    registry, able = route.registry, ctr.capabilities
    secure, name = registry.scheme == "https", registry.name
    if secure and registry.skip_verify and not able.skip_verify:
        fault = f"checks the certificate of {name} in spite of skip_verify"
        hint = "give the certificate of its CA with ca_file in ctr_registries"
    elif secure and registry.local and able.plain_localhost:
        fault = f"speaks plain http to {name}, since that is the host itself"
        hint = "use another name of the registry, or set scheme: http for it in ctr_registries"
    elif secure and registry.local and able.trusts_localhost and not registry.skip_verify:
        fault = f"checks no certificate of {name}, since that is the host itself"
        hint = "use another name of the registry, or set skip_verify: true for it in ctr_registries"
    else:
        return
    raise MethodUnsupported(f"ctr {client} {fault}; nothing was moved", hint=hint)


def can_be_typed(password: str) -> bool:
    """Whether a terminal passes a password on unchanged."""
    return password.isprintable() and len(password.encode()) <= MOST_TYPED
