"""ctr's versions and what each can do (measured on 1.0.3 to 2.3.4). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

Release = tuple[int, int]  # major and minor number
_VERSION = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?P<rest>\S{0,200})", re.ASCII)
_PRERELEASE = re.compile(r"-(?:alpha|beta|rc)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Version:
    """A containerd version.

    Attributes:
        text: as the host printed it.
        prerelease: whether it is an alpha, beta or rc; what such a version can do lies between two releases.
    """

    major: int
    minor: int
    patch: int
    text: str
    prerelease: bool = False

    @classmethod
    def parse(cls, printed: str) -> Version | None:
        """Parses ``ctr --version`` or a version alone: the number is the last word. Returns None if it is no number.

        ``v1.2.6``, ``1.6.20~ds1``, ``v1.7.2-k3s1``, ``1.3.0-beta.0-27-gdeadbee`` and ``2.1.9+unknown`` occur.
        """
        words = printed.split()
        match = _VERSION.fullmatch(words[-1]) if words else None
        if not match:
            return None
        major, minor, patch = (int(part or 0) for part in match.group(1, 2, 3))
        return cls(major, minor, patch, text=words[-1], prerelease=bool(_PRERELEASE.match(match["rest"])))

    @property
    def release(self) -> Release:
        """The release that the version belongs to."""
        return self.major, self.minor


_FIRST, _LATEST = (0, 0), (99, 0)


def _able(*spans: tuple[Release, Release], shown: str | None = None) -> bool:
    """Declares an ability by ``spans``, the first and the last release of each.

    For a ctr whose version says nothing, ``shown`` is a regular expression that the help of an able ctr fits. With
    None, no help tells, and such a ctr counts as not able.
    """
    ability: bool = field(metadata={"spans": spans, "shown": shown})
    return ability


def _since(major: int, minor: int, shown: str | None = None) -> bool:
    return _able(((major, minor), _LATEST), shown=shown)


def _until(major: int, minor: int, shown: str | None = None) -> bool:
    return _able((_FIRST, (major, minor)), shown=shown)


class Abilities:
    """What a release can do, as one table: a field for each ability, made by `_since`, `_until` or `_able`."""

    @classmethod
    def of_version(cls, version: Version) -> Self:
        """Returns what a release can do."""
        return cls._where(lambda ability: any(first <= version.release <= last for first, last in ability["spans"]))

    @classmethod
    def of_help(cls, text: str) -> Self:
        """Returns what a program can do by its own help, for a version that is unknown or a pre-release.

        The text is the output of ``images --help``, ``images tag --help`` and ``images import --help`` together.
        """
        return cls._where(
            lambda ability: ability["shown"] is not None and re.search(ability["shown"], text, re.MULTILINE) is not None
        )

    @classmethod
    def _where(cls, able: Callable[[Mapping[str, Any]], bool]) -> Self:
        return cls(**{each.name: able(each.metadata) for each in fields(cls)})  # type: ignore[arg-type]


_ALWAYS = ""  # nothing in the help tells, and nothing breaks where a ctr is not able
_TAG = r"^[ \t]+tag[ \t]"
_PLATFORM = r"--platform \w"


@dataclass(frozen=True, slots=True)
class Capabilities(Abilities):
    """What a ctr client can do; the daemon's version does not matter (measured with eight daemons)."""

    # There is ``images tag``.
    tag: bool = _since(1, 3, _TAG)
    # Tag, import, export, push and pull have ``--local``. Without it, tag of 2.x overwrites a name silently, and export
    # of 2.x may be cut short with exit status 0.
    local: bool = _since(1, 7, "--local")
    # ``content ingest`` hands containerd 32 KiB at a time (Go 1.22), where import hands it a MiB.
    slow_ingest: bool = _since(1, 7, "--local")
    # Import takes the repository from ``--oci-name`` and the tag from the ref name; later versions read the full name
    # from the annotations.
    oci_name: bool = _until(1, 1, "--oci-name")
    # Export writes the name given with ``--oci-ref-name`` (1.2.14 has the flag and ignores it).
    oci_ref_name: bool = _until(1, 2, rf"(?s)\A(?!.*{_TAG})")
    # Import names an image of another platform, and then fails to unpack it.
    fails_on_foreign: bool = _until(1, 1, "--oci-name")
    # Import has ``--no-unpack``.
    no_unpack: bool = _since(1, 3, "--no-unpack")
    # Import has ``--all-platforms``, and without it keeps no platform but the host's.
    import_all_platforms: bool = _since(1, 3, "--all-platforms")
    # Import takes an index whose other manifests are absent.
    partial_index: bool = _able((_FIRST, (1, 1)), ((1, 3), _LATEST), shown=f"{_TAG}|--oci-name")
    # Import has ``--platform``.
    import_platform: bool = _since(1, 5, _PLATFORM)
    # Instead of the host's own platform, 386 will do on amd64, and arm on arm64.
    substitutes: bool = _since(1, 5, _PLATFORM)
    # ``content ingest`` of an empty file links a blob of another namespace.
    link: bool = _since(1, 1, _ALWAYS)
    # Push and pull run without a terminal. Those of 1.0 panic without one.
    piped: bool = _since(1, 1, r"(?s)\A(?!.*--oci-name)")
    # Push sends a whole index.
    push_index: bool = _since(1, 1, r"(?s)\A(?!.*--oci-name)")
    # Push has ``--platform``.
    push_platform: bool = _since(1, 4, _PLATFORM)
    # Push leaves out foreign layers, unless it has ``--allow-non-distributable-blobs``.
    leaves_foreign: bool = _since(1, 6, "--local")
    # Push and pull have ``--hosts-dir``.
    hosts_dir: bool = _since(1, 4, _PLATFORM)
    # Push and pull pass over a hosts.toml without a ``[host]`` table.
    wants_host_tables: bool = _able(((1, 5), (1, 7)))
    # Pull has ``--platform`` and ``--all-platforms``.
    pull_platform: bool = _since(1, 1, r"(?s)\A(?!.*--oci-name)")
    # Pull brings the configs of all platforms, so that CRI labels an image of which it brought another platform alone.
    pulls_configs: bool = _since(2, 0)
    # ``--skip-verify`` of push and pull has an effect.
    skip_verify: bool = _since(1, 3, _TAG)
    # Push prints the progress of each layer; others print only that of manifest and config.
    tells_layers: bool = _able((_FIRST, (1, 5)), ((2, 0), _LATEST))
    # Push and pull speak plain http to a registry on the host itself, whatever the flags say.
    plain_localhost: bool = _able((_FIRST, (1, 3)), ((1, 6), (1, 6)))
    # Push, pull, tag, import and export without ``--local`` ask the daemon's transfer service.
    transfer_client: bool = _since(2, 0)
    # Push and pull check no certificate of a registry on the host itself.
    trusts_localhost: bool = _since(1, 7)


@dataclass(frozen=True, slots=True)
class DaemonCapabilities(Abilities):
    """What a containerd can do, whichever ctr asks it."""

    # CRI labels every name in its namespace.
    cri_labels: bool = _since(1, 2, _ALWAYS)
    # CRI heeds the label that pins an image.
    pins: bool = _since(1, 7)
    # It unpacks layers with zstd.
    zstd: bool = _since(1, 5, _ALWAYS)
    # A ctr from 2.0 on works with it without ``--local``.
    transfer_service: bool = _since(1, 7, _ALWAYS)

    @classmethod
    def of(cls, printed: str) -> Self:
        """Returns what a daemon can do, by its version as printed; what every recent one can if that is none."""
        version = Version.parse(printed)
        return cls.of_version(version) if version else cls.of_help("")
