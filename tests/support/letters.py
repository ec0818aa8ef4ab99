"""A fixture that lets digests of one repeated letter pass, for tests that are not about digests."""

from __future__ import annotations

import pytest

from ctr_ferry.errors import ContentMissing
from ctr_ferry.images import content
from ctr_ferry.shell import Answer


def _believed(digest: str, answer: Answer, holder: str) -> bytes:
    if not answer.ok:
        raise ContentMissing(f"{holder} does not give {digest}")
    return answer.stdout


@pytest.fixture(autouse=True)
def unhashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests that are read by digest are not hashed."""
    monkeypatch.setattr(content, "checked", _believed)
