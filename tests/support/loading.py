"""An archive, and what `load` makes of it or why it refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import NAME, layout, tarred
from reading_archives import ARM, FULL, IMAGE

from ctr_ferry.errors import UsageError
from tasks.load import Request, parse


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    """An archive of two images: one with two names, one for arm64."""
    entries = [IMAGE.entry(**{NAME: FULL}), IMAGE.entry(**{NAME: "docker.io/library/app:2"})]
    made = tmp_path / "app.tar"
    made.write_bytes(tarred(layout(IMAGE.blobs | ARM.blobs, *entries, ARM.entry(**{NAME: "r.example/arm:1"}))))
    return made


def names(request: Request) -> list[str]:
    """Return the names that are to be given."""
    return [str(image_copy.dst) for image_copy in request.copy_request.image_copies]


def refused(file: Path, **options: object) -> UsageError:
    """Return the error with which `load` refuses an archive."""
    with pytest.raises(UsageError) as caught:
        parse(archive=str(file), **options)  # type: ignore[arg-type]
    return caught.value
