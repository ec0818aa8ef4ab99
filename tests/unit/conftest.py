"""A fake host knows its facts by itself, and scripts that run on this machine have a folder for temporary files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from ctr_ferry.images import inspect


@pytest.fixture(autouse=True, scope="session")
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scripts of two workers have one owner: in one folder, the clean-up of one would remove the files of the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(autouse=True)
def facts_of_fake_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake host with ``survey`` or ``facts`` is asked by that method; every other host is probed."""
    probed = inspect.survey

    def survey(host: Any, namespaces: Sequence[str], more: Mapping[str, str]) -> Any:
        if hasattr(host, "survey"):
            return host.survey(namespaces, more)
        return (host.facts(namespaces), {}) if hasattr(host, "facts") else probed(host, namespaces, more)

    monkeypatch.setattr(inspect, "survey", survey)
