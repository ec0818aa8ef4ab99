"""A fake host knows its facts by itself: `inspect` asks it for them, where a real host is probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ctr_ferry.images import inspect


@pytest.fixture(autouse=True)
def facts_of_fake_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake host with ``survey`` or ``facts`` is asked by that method; every other host is probed."""
    probed = inspect.survey

    def survey(host: Any, namespaces: Sequence[str], more: Mapping[str, str]) -> Any:
        if hasattr(host, "survey"):
            return host.survey(namespaces, more)
        return (host.facts(namespaces), {}) if hasattr(host, "facts") else probed(host, namespaces, more)

    monkeypatch.setattr(inspect, "survey", survey)
