"""Options that several commands share: from text to value, checked before any host is touched."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctr_ferry.ctr.commands import LONGEST_NAMESPACE, NAMESPACE
from ctr_ferry.errors import UsageError
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference


def namespace(text: str | None, option: str = "--namespace") -> str | None:
    """Checks a containerd namespace; None if the option was not given; UsageError if the text is none."""
    if text is not None and (not re.fullmatch(NAMESPACE, text) or len(text) > LONGEST_NAMESPACE):
        raise UsageError(
            f"{option} {text!r} is no namespace",
            hint="use letters and digits, with single '.', '_' or '-' between them",
        )
    return text


def new_name(text: str | None, option: str = "--as") -> Reference | None:
    """Parses a new name for an image; None if the option was not given.

    Raises BadReference for other text, and UsageError for a reference with a digest.
    """
    if text is None:
        return None
    reference = Reference.parse(text)
    if reference.digest:
        raise UsageError(f"{option} {text!r} has a digest", hint="give the new name with a tag alone")
    return reference


def platform(text: str | None, *, every: bool = False) -> Platform | None:
    """Parses a platform such as linux/arm64; None if the option was not given.

    Raises UsageError for other text, and if ``--all-platforms`` was given as well (``every``).
    """
    if text and every:
        raise UsageError("--platform and --all-platforms exclude each other", hint="leave one of them out")
    try:
        return Platform.parse(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from error


def choice(text: str | None, option: str, choices: Sequence[str]) -> str:
    """Returns the choice, by default the first one; raises UsageError for a text that is none of the choices."""
    if text is not None and text not in choices:
        raise UsageError(f"{option} {text!r} is none of {', '.join(choices)}", hint=f"such as {option} {choices[0]}")
    return text or choices[0]
