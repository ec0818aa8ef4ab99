"""The commands ``images push`` and ``images pull`` for each version of ctr (measured on 1.0.3 to 2.1.9). Pure.

They have ``--local`` wherever ctr knows it, so that the client and not the daemon does the transfer. Then this one
command decides on certificates, proxy and password.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr import naming, roll_back
from ctr_ferry.ctr.commands import CRI_MANAGED, Ctr
from ctr_ferry.ctr.naming import Method, Naming, Place
from ctr_ferry.ctr.version import Version
from ctr_ferry.errors import MethodUnsupported
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Registry

METER = "ferry-read:"  # precedes the number of bytes that ctr has read so far; `Progress` parses it
BUNDLES = (  # where Go reads certificates (crypto/x509, root_linux.go)
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
SYSTEM_BUNDLE = f'for f in {shell.join(BUNDLES)}; do [ -s "$f" ] && {{ cat "$f"; break; }}; done'
TAKE_AWAY = '[ -z "$authorities" ] || rm -f "$authorities"'
_TYPED = 1024  # bytes of a password that fit into a line of any terminal


@dataclass(frozen=True, slots=True)
class Route:
    """How one host's ctr reaches a registry.

    Attributes:
        username: ctr asks for this user's password; None means no login.
        authorities: CA certificates in PEM, besides those that the host trusts.
        alone: whether only ``authorities`` count, and not what the host trusts; so if a password is sent.
        proxy: ``http://host:port``.
        owner: the run's id with our prefix; our file's name begins with it.
    """

    registry: Registry
    username: str | None = None
    authorities: bytes = b""
    alone: bool = False
    proxy: str | None = None
    owner: str = ""

    @property
    def cleanup(self) -> str:
        """Sh text that removes the file of certificates; empty if there is none."""
        return TAKE_AWAY if self.authorities else ""


def bring(authorities: bytes, owner: str, *, alone: bool = False) -> str:
    """Builds sh text that writes certificates into a file on the host; ``$authorities`` is its path.

    Args:
        authorities: PEM.
        owner: the file's name begins with it.
        alone: False puts the certificates that the host trusts into the file as well.
    """
    file = f'"${{TMPDIR:-/tmp}}/{shell.join([owner])}.XXXXXX"'
    pems = shell.printf(authorities) if alone else f"{{ {SYSTEM_BUNDLE}; echo; {shell.printf(authorities)}; }}"
    return f'authorities=$(umask 077; mktemp {file}) && {pems} >"$authorities"'


def push(
    ctr: Ctr,
    namespace: str,
    route: Route,
    names: tuple[str, str],
    *,
    platform: Platform | None = None,
    terminal: str | None = None,
) -> str:
    """Builds ``images push``, as sh text.

    Args:
        names: the name in the registry, and the name on the host.
        platform: pushes only this platform's manifest of an index (from 1.4).
        terminal: the device on which ctr asks for the password; None for no login.
    """
    flags = [f"--platform={platform}"] if platform else []
    brought, line = _command(ctr, namespace, route, terminal, "push", *flags, *names)
    return brought + (line if ctr.capabilities.tells_layers else _metered(line))


def stage(place: Place, image: str, name: Reference, child: Descriptor, *, foreign: bool) -> tuple[str, str]:
    """Gives a temporary name to one manifest of an index; ctr up to 1.3 cannot push the manifest in another way.

    (On all versions ``push --manifest`` sends a manifest of length 0, which registries refuse.)

    CRI moves its own record of an image to the name that came last. So where CRI is on, the clean-up removes CRI's
    label from the image's own name. CRI then sets the label again and moves its record back.

    Returns:
        The step that gives the name, and the clean-up.
    """
    ctr, namespace = place.ctr, place.namespace
    named = Naming(Method.INDEX, image, name, child, replaces=True, foreign=foreign)
    cleanup = f"{ctr.remove(namespace, str(name))} >/dev/null 2>&1"
    if place.cri_managed:
        # CRI creates a name again that goes while CRI labels it.
        labelled = roll_back.list_labelled(ctr, namespace, [str(name)], cri_managed=True, patience=roll_back.HASTE)
        cleanup = f"{{ {labelled}\n}} 2>/dev/null\n{cleanup}"
        label, _, _ = CRI_MANAGED.partition("=")
        again = f"{ctr.relabel(namespace, image, f'{label}=')} >/dev/null 2>&1"
        cleanup += f"\n{again} && {{ {naming.verify(place, [image])}; }} >/dev/null 2>&1"
    return naming.by_index(place, named), cleanup


def pull(
    ctr: Ctr,
    namespace: str,
    route: Route,
    name: str,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    terminal: str | None = None,
) -> str:
    """Builds ``images pull``, as sh text.

    Args:
        name: with registry, and tag or digest.
        platform: pulls this platform; None means the host's.
        all_platforms: pulls every platform.
        terminal: the device on which ctr asks for the password; None for no login.
    """
    flags: list[str] = []
    if ctr.snapshotter:
        flags += ["--snapshotter", ctr.snapshotter]
    if platform:
        flags.append(f"--platform={platform}")
    if all_platforms:
        flags.append("--all-platforms")
    return "".join(_command(ctr, namespace, route, terminal, "pull", *flags, name))


def _metered(line: str) -> str:
    """Prints once a second how many bytes ctr has read, for a ctr that prints no progress of layers.

    The number is from ``/proc/PID/io``. Written bytes would include ctr's own progress bars.
    """
    return f"""{{ {line} & ctr_pid=$!
( trap 'kill -s KILL $!; exit' TERM
while sleep 1 >/dev/null 2>&1 & wait $!; do sed -n 's/^rchar:/{METER}/p' /proc/$ctr_pid/io 2>/dev/null || exit; done
) & meter=$!
wait $ctr_pid; ctr_exit=$?; kill $meter 2>/dev/null; (exit $ctr_exit); }}"""


def _command(ctr: Ctr, namespace: str, route: Route, terminal: str | None, verb: str, *words: str) -> tuple[str, str]:
    """The sh text that brings certificates, if any, and the command itself."""
    registry = route.registry
    flags: list[str] = []
    if ctr.capabilities.local:
        flags.append("--local")
    if registry.scheme == "http":
        flags.append("--plain-http")
    elif registry.skip_verify:
        flags.append("--skip-verify")
    if route.username:
        flags += ["--user", route.username]
    line = ctr.line(namespace, "images", verb, *flags, *words)
    if route.proxy:
        line = f"{shell.join(['env', f'HTTP_PROXY={route.proxy}', f'HTTPS_PROXY={route.proxy}'])} {line}"
    if terminal:
        line = f"{line} <{shell.join([terminal])}"
    if not route.authorities:
        return "", line
    # SSL_CERT_FILE replaces the system's bundle, but not its folders of certificates.
    folder = "SSL_CERT_DIR=/dev/null " if route.alone else ""
    brought = bring(route.authorities, route.owner, alone=route.alone)
    return f"{brought} &&\n", f'SSL_CERT_FILE="$authorities" {folder}{line}'


def refuse(ctr: Ctr, client: str, route: Route) -> None:
    """Refuses settings that this ctr would silently ignore.

    Args:
        client: ctr's version, as printed.

    Raises:
        MethodUnsupported: says which setting works instead.
    """
    registry, version = route.registry, Version.parse(client)
    if registry.scheme == "https" and registry.skip_verify and not ctr.capabilities.skip_verify:
        raise MethodUnsupported(
            f"ctr {client} checks the certificate of {registry.name} whatever skip_verify says",
            hint="name the certificate of its CA with ca_file in ctr_registries",
        )
    plain = version and (not version.at_least(1, 4) or (version.major, version.minor) == (1, 6))
    local = registry.host in ("localhost", "127.0.0.1", "::1")
    if registry.scheme == "https" and local and plain:
        raise MethodUnsupported(
            f"ctr {client} speaks plain http to {registry.name}, since that is the host itself",
            hint="call the registry by another name, or set scheme: http for it in ctr_registries",
        )
    if registry.scheme == "https" and local and not registry.skip_verify and version and version.at_least(1, 7):
        raise MethodUnsupported(
            f"ctr {client} checks no certificate of {registry.name}, since that is the host itself",
            hint="call the registry by another name, or set skip_verify: true for it in ctr_registries",
        )


def can_be_typed(password: str) -> bool:
    """Whether a terminal passes a password on unchanged."""
    return password.isprintable() and len(password.encode()) <= _TYPED
