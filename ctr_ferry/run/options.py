"""Options that several commands take, from text to value; what is wrong is refused before any host is touched."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctr_ferry.errors import UsageError
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference

_NAMESPACE = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")  # containerd's identifiers.Validate
_NAMESPACE_LENGTH = 76


def namespace(text: str | None, option: str = "--namespace") -> str | None:
    """A containerd namespace; None where it was not given."""
    if text is not None and (not _NAMESPACE.fullmatch(text) or len(text) > _NAMESPACE_LENGTH):
        raise UsageError(
            f"{option} {text!r} is no namespace", hint="letters, digits and single '.', '_', '-' between them"
        )
    return text


def new_name(text: str | None, option: str = "--as") -> Reference | None:
    """A name to give; None where it was not given.

    Raises:
        BadReference, UsageError.
    """
    if text is None:
        return None
    reference = Reference.parse(text)
    if reference.digest:
        raise UsageError(f"{option} {text!r} has a digest", hint="a name to give has a tag alone")
    return reference


def platform(text: str | None, *, every: bool = False) -> Platform | None:
    """A platform such as linux/arm64; None where it was not given; not together with ``--all-platforms``."""
    if text and every:
        raise UsageError("--platform and --all-platforms exclude each other", hint="leave one of them out")
    try:
        return Platform.parse(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from error


def choice(text: str | None, option: str, choices: Sequence[str]) -> str:
    """One of the choices; the first where it was not given."""
    if text is not None and text not in choices:
        raise UsageError(f"{option} {text!r} is none of {', '.join(choices)}")
    return text or choices[0]
