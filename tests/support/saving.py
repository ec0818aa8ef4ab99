"""Images and another tool for the tests of `fab save` and `fab load` on the fleet."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import pytest
from ferry import Run

from lab import debian
from lab.fleet import CACHE, Fleet
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"
HELLO = ("/bin/echo", "hello")


@pytest.fixture(scope="module", name="make")
def make_fixture(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BuiltImage]:
    """Builds an image of this session alone."""
    assert fleet.nodes
    folder = tmp_path_factory.mktemp("images")

    def make(**options: object) -> BuiltImage:
        layers = options.pop("layers", (1000, 2000))
        return build(folder, layers=layers, cmd=HELLO, seed=secrets.randbits(32), **options)  # type: ignore[arg-type]

    return make


class Images(NamedTuple):
    """One of one platform, docker's types and compressed layers; one of two platforms, OCI's types."""

    plain: BuiltImage
    both: BuiltImage


@pytest.fixture(scope="module", name="images")
def images_fixture(make: Callable[..., BuiltImage]) -> Images:
    """Images that are only read."""
    return Images(make(media="docker"), make(platforms=(NATIVE, OTHER)))


@pytest.fixture(scope="module", name="skopeo")
def skopeo_fixture(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Debian's skopeo; fails where it fails."""
    try:
        tree = debian.unpacked(["skopeo"], CACHE, whole=True)
    except debian.Unavailable as why:
        pytest.skip(str(why))
    libraries = ":".join(str(path) for path in (tree / "usr/lib").glob("*-linux-gnu"))
    temporary = tmp_path_factory.mktemp("skopeo")

    def run(*words: str) -> str:
        done = subprocess.run(
            [tree / "usr/bin/skopeo", "--insecure-policy", "--tmpdir", temporary, *words],
            env={**os.environ, "LD_LIBRARY_PATH": libraries, "HOME": str(temporary)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        return done.stdout

    return run


def statuses(run: Run) -> list[dict[str, str]]:
    """Return, for each command of a line, the status by host."""
    return [{o["host"]: o["status"] for o in each["outcomes"]} for each in run.document["commands"]]
