"""Image references as distribution, docker and kubelet write them: ``host:port/path:tag@digest``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ctr_ferry.errors import BadReference

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LENGTH = 255  # distribution/reference: NameTotalLengthMax

_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_LONGEST = 1024  # characters of a text that is parsed at all; a name, a tag and a digest have at most 520


def is_digest(text: str) -> bool:
    """Whether ``text`` is a complete digest (OCI image-spec, descriptor.md#digests)."""
    return _DIGEST.fullmatch(text) is not None


def is_glob(text: str) -> bool:
    """Whether ``text`` is a glob rather than a name: no reference has ``*``, ``?`` or ``[``."""
    return bool(set(text) & set("*?["))


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference in its full form.

    Attributes:
        domain: registry host with port; ``docker.io`` if the text names none.
        path: repository below the domain; ``library/…`` for docker.io's short names.
        text: what the user wrote, for messages.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parses a reference, short forms included (grammar: distribution/reference).

        Raises:
            BadReference: says which part is wrong, and what a correct one looks like.
        """
        _refuse_what_people_paste(text)
        name, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _bad(text, f"{digest!r} is no digest", "a digest is sha256: and 64 hex digits")
        name, tag = _split_tag(name)
        if tag is not None and not _TAG.fullmatch(tag):
            raise _bad(text, f"{tag!r} is no tag", "a tag has letters, digits, '_', '.' and '-', at most 128")
        domain, path = _split_domain(name)
        if not _DOMAIN.fullmatch(domain):
            raise _bad(text, f"{domain!r} is no registry host", "a host looks like registry.example:5000")
        if not _PATH.fullmatch(path):
            raise _bad(
                text,
                f"{path.removeprefix(_OFFICIAL)!r} is no repository",
                "a repository has lower-case letters, digits and single '.', '_', '-', '/' between them",
            )
        if len(domain) + 1 + len(path) > _NAME_LENGTH:
            raise _bad(text, f"its name is longer than {_NAME_LENGTH} characters", "shorten the repository")
        return cls(domain=domain, path=path, tag=tag, digest=digest or None, text=text)

    @property
    def repository(self) -> str:
        """Domain and path, as for ctr's ``--base-name`` and ``--oci-name``."""
        return f"{self.domain}/{self.path}"

    @classmethod
    def of_name(cls, name: str) -> Reference | None:
        """Parses a name that a host has, which may be any text; None where it is no reference."""
        try:
            return cls.parse(name)
        except BadReference:
            return None

    @property
    def or_latest(self) -> Reference:
        """The same reference, with the tag ``latest`` if it has neither tag nor digest."""
        return self.or_tagged("latest")

    @property
    def for_cri(self) -> Reference:
        """The name by which kubelet looks for the image: of a tag beside a digest, CRI takes no notice."""
        return replace(self, tag=None) if self.digest else self

    def or_tagged(self, tag: str) -> Reference:
        """Returns the same reference, with this tag if it has neither tag nor digest."""
        return self if self.tag or self.digest else self.with_tag(tag)

    def with_tag(self, tag: str) -> Reference:
        """Returns the same repository with another tag."""
        return replace(self, tag=tag)

    def with_domain(self, domain: str) -> Reference:
        """Returns the same path, tag and digest on another registry host."""
        return replace(self, domain=domain)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def pinned(ref: str) -> Reference | None:
    """The name of an image that is asked for by repository and digest; None for every other text."""
    reference = None if is_glob(ref) or is_digest(ref) else Reference.of_name(ref)
    return reference.for_cri if reference and reference.digest else None


def parse_domain(text: str) -> str:
    """Returns a registry host with optional port, as for ``--to-registry``; raises BadReference if it is none."""
    _refuse_what_people_paste(text)
    domain, slash, _ = text.partition("/")
    if slash:
        raise _bad(text, "it has a path", f"give the host alone: {domain}")
    if not _DOMAIN.fullmatch(text) or not _looks_like_a_domain(text):
        raise _bad(text, "it is no registry host", "a host looks like registry.example or node1:5000")
    return text


def _refuse_what_people_paste(text: str) -> None:
    if not text:
        raise BadReference("an image reference is empty", hint="give one such as registry.example/app:1")
    if len(text) > _LONGEST:
        raise BadReference(
            f"{text[:80]!r}… is no image reference: it has {len(text)} characters",
            hint="the longest references have about 500",
        )
    if "://" in text:
        raise _bad(text, "it has a scheme", f"leave out {text.split('://', 1)[0]}://")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise _bad(text, "it has white space or control characters", "remove them")


def _split_tag(name: str) -> tuple[str, str | None]:
    head, _, tag = name.rpartition(":")
    return (head, tag) if head and "/" not in tag else (name, None)


def _looks_like_a_domain(first: str) -> bool:
    return any(c in first for c in ".:[") or first == "localhost" or first != first.lower()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    domain, path = (first, rest) if slash and _looks_like_a_domain(first) else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _bad(text: str, why: str, hint: str) -> BadReference:
    return BadReference(f"{text!r} is no image reference: {why}", hint=hint)
