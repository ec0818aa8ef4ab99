"""Push and pull as each ctr takes them (measured on 1.0.3 to 2.1.9). Pure.

Where ctr has ``--local`` it is given, so that the client and not the daemon does the transfer: then certificates,
proxy and password are what this one command brings with it.
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

METER = "ferry-read:"  # before the bytes that ctr has read so far; for `Progress`
BUNDLES = (  # where Go looks (crypto/x509, root_linux.go)
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
SYSTEM_BUNDLE = f'for f in {shell.join(BUNDLES)}; do [ -s "$f" ] && {{ cat "$f"; break; }}; done'
TAKE_AWAY = '[ -z "$authorities" ] || rm -f "$authorities"'
_TYPED = 1024  # bytes of a password that a terminal's line surely holds


@dataclass(frozen=True, slots=True)
class Route:
    """How one host's ctr gets to a registry.

    Attributes:
        username: whose password ctr is to ask for; None is nobody.
        authorities: certificates, PEM, of whoever signed the registry's, besides those that the host trusts.
        alone: whether what the host trusts does not count, since a password goes along.
        proxy: ``http://host:port``.
        owner: the run's id; a file of ours carries it.
    """

    registry: Registry
    username: str | None = None
    authorities: bytes = b""
    alone: bool = False
    proxy: str | None = None
    owner: str = ""

    @property
    def cleanup(self) -> str:
        """Takes away what the steps brought to the host."""
        return TAKE_AWAY if self.authorities else ""


def bring(authorities: bytes, owner: str, *, alone: bool = False) -> str:
    """Puts certificates into a file of the host, ``$authorities``; as sh text.

    Args:
        owner: whose name the file carries.
        alone: whether the host's own are not put before them.
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
    """``images push``, as sh text.

    Args:
        names: under which name it goes, and what it is called on the host.
        platform: whose manifest of an index goes (1.4 on).
        terminal: the device on which ctr asks for the password.
    """
    flags = [f"--platform={platform}"] if platform else []
    brought, line = _command(ctr, namespace, route, terminal, "push", *flags, *names)
    return brought + (line if ctr.capabilities.tells_layers else _metered(line))


def stage(place: Place, image: str, name: Reference, child: Descriptor, *, foreign: bool) -> tuple[str, str]:
    """A name of ours for one manifest of an index, which to 1.3 cannot be pushed in another way.

    (``push --manifest`` sends it with a length of 0, which registries refuse, on all versions.)

    Returns:
        The step that gives it, and the clean-up. CRI lets its record of the image follow the last name that comes;
        where it watches, the image's own name comes again: its label is taken off, and CRI sets it anew.
    """
    ctr, namespace = place.ctr, place.namespace
    named = Naming(Method.INDEX, image, name, child, replaces=True, foreign=foreign)
    cleanup = f"{ctr.remove(namespace, str(name))} >/dev/null 2>&1"
    if place.cri_managed:
        # CRI gives a name anew that goes while it labels it.
        labelled = roll_back.watch(ctr, namespace, [str(name)], cri_managed=True, patience=roll_back.HASTE)
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
    """``images pull``, as sh text."""
    flags = ["--snapshotter", ctr.snapshotter] if ctr.snapshotter else []
    flags += [f"--platform={platform}"] if platform else []
    flags += ["--all-platforms"] if all_platforms else []
    return "".join(_command(ctr, namespace, route, terminal, "pull", *flags, name))


def _metered(line: str) -> str:
    """A ctr that tells little of what it does: once a second, how many bytes it has read, of containerd's blobs.

    (``/proc/PID/io``; what it has written would count its own progress bars, too.)
    """
    return f"""{{ {line} & carrier=$!
( trap 'kill -s KILL $!; exit' TERM
while sleep 1 >/dev/null 2>&1 & wait $!; do sed -n 's/^rchar:/{METER}/p' /proc/$carrier/io 2>/dev/null || exit; done
) & meter=$!
wait $carrier; carried=$?; kill $meter 2>/dev/null; (exit $carried); }}"""


def _command(ctr: Ctr, namespace: str, route: Route, terminal: str | None, verb: str, *words: str) -> tuple[str, str]:
    """What is to be brought to the host first, if anything, and the command itself."""
    registry = route.registry
    flags = ["--local"] if ctr.capabilities.local else []
    flags += ["--plain-http"] if registry.scheme == "http" else []
    flags += ["--skip-verify"] if registry.scheme == "https" and registry.skip_verify else []
    flags += ["--user", route.username] if route.username else []
    line = ctr.line(namespace, "images", verb, *flags, *words)
    if route.proxy:
        line = f"{shell.join(['env', f'HTTP_PROXY={route.proxy}', f'HTTPS_PROXY={route.proxy}'])} {line}"
    if terminal:
        line = f"{line} <{shell.join([terminal])}"
    if not route.authorities:
        return "", line
    # SSL_CERT_FILE replaces the system's bundle, not its folders of certificates.
    folder = "SSL_CERT_DIR=/dev/null " if route.alone else ""
    brought = bring(route.authorities, route.owner, alone=route.alone)
    return f"{brought} &&\n", f'SSL_CERT_FILE="$authorities" {folder}{line}'


def refuse(ctr: Ctr, client: str, route: Route) -> None:
    """Refuses what this ctr would ignore without a word.

    Args:
        client: its version, as printed.

    Raises:
        MethodUnsupported: with the way out.
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
    """Whether a terminal hands a password on as it is."""
    return password.isprintable() and len(password.encode()) <= _TYPED
