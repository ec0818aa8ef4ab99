"""ctr's versions and what each can do (measured on 1.0.3 to 2.1.9). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
        prerelease = bool(_PRERELEASE.match(match["rest"]))
        return cls(major=major, minor=minor, patch=patch, text=words[-1], prerelease=prerelease)

    def at_least(self, major: int, minor: int) -> bool:
        """Whether this is that release or a later one."""
        return (self.major, self.minor) >= (major, minor)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a ctr client can do; the daemon's version does not matter (measured with eight daemons).

    Attributes:
        tag: there is ``images tag`` (from 1.3).
        local: tag, import and export have ``--local`` (from 1.7). Without it, tag of 2.x overwrites a name silently,
            and export of 2.x may be cut short with exit status 0.
        oci_name: import takes the repository from ``--oci-name`` and the tag from the ref name (1.0 and 1.1). Later
            versions read the full name from the annotations.
        no_unpack: import has ``--no-unpack`` and ``--all-platforms`` (from 1.3).
        partial_index: import takes an index whose other manifests are absent (all but 1.2).
        link: ``content ingest`` of an empty file links a blob of another namespace (from 1.1).
        piped: push and pull run without a terminal (from 1.1). Those of 1.0 panic without one; they also push no
            index and know no platforms.
        skip_verify: ``--skip-verify`` has an effect (from 1.3).
        push_platform: push has ``--platform`` (from 1.4).
        import_platform: import has ``--platform`` (from 1.5).
        tells_layers: push prints the progress of each layer; 1.6 and 1.7 print only that of manifest and config.
    """

    tag: bool
    local: bool
    oci_name: bool
    no_unpack: bool
    partial_index: bool
    link: bool
    piped: bool
    skip_verify: bool
    push_platform: bool
    import_platform: bool
    tells_layers: bool

    @classmethod
    def of_version(cls, version: Version) -> Capabilities:
        """Returns what a release can do."""
        return cls(
            tag=version.at_least(1, 3),
            local=version.at_least(1, 7),
            oci_name=not version.at_least(1, 2),
            no_unpack=version.at_least(1, 3),
            partial_index=version.at_least(1, 3) or not version.at_least(1, 2),
            link=version.at_least(1, 1),
            piped=version.at_least(1, 1),
            skip_verify=version.at_least(1, 3),
            push_platform=version.at_least(1, 4),
            import_platform=version.at_least(1, 5),
            tells_layers=version.at_least(2, 0) or not version.at_least(1, 6),
        )

    @classmethod
    def of_help(cls, text: str) -> Capabilities:
        """Returns what a ctr can do by its own help, for a version that is unknown or a pre-release.

        Args:
            text: the output of ``images --help``, ``images tag --help`` and ``images import --help`` together.
        """
        tag = re.search(r"^[ \t]+tag[ \t]", text, re.MULTILINE) is not None
        oci_name = "--oci-name" in text
        platform = tag and re.search(r"--platform \w", text) is not None  # of import
        return cls(
            tag=tag,
            local=tag and "--local" in text,
            oci_name=oci_name,
            no_unpack="--no-unpack" in text,
            partial_index=tag or oci_name,
            link=True,
            piped=not oci_name,
            skip_verify=tag,
            push_platform=platform,
            import_platform=platform,
            tells_layers=False,
        )
