"""The stand-in for ctr 1.2.6 reads an archive as 1.2.6 did, in bounded memory; what it cannot, it refuses."""

import json
import os
import tarfile
import threading
import tracemalloc

import pytest
from archives import NAME, REF

from lab.standin.archives import NotCovered, Pipe, _pass_archive, oci_ref_name, old_index


def test_an_archive_streams_in_bounded_memory_and_no_further_than_its_end() -> None:
    size = 64 << 20
    header = tarfile.TarInfo("blobs/sha256/x")
    header.size = size
    read_end, write_end = os.pipe()
    sink = os.open(os.devnull, os.O_WRONLY)
    pieces = [header.tobuf(), *[bytes(1 << 20)] * (size >> 20), bytes(1024)]

    def write() -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(write_end, view) :]

    writer = threading.Thread(target=write)
    writer.start()
    tracemalloc.start()
    _pass_archive(Pipe(read_end, sink), "", False)  # returns though the write end is still open
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.join()
    for fd in (read_end, write_end, sink):
        os.close(fd)
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("notes", "masked"),
    [
        ({NAME: "h/a:1", REF: "h/a:1"}, False),
        ({REF: "h/a:1"}, False),
        ({NAME: "h/a:1", REF: "1"}, True),
        ({NAME: "h/a:1"}, True),
        (None, False),
    ],
)
def test_the_name_that_1_2_6_does_not_know_is_masked_only_where_it_matters(
    notes: dict[str, str] | None, masked: bool
) -> None:
    index = json.dumps({"manifests": [{"digest": "d", "annotations": notes}]}).encode()
    answer = old_index(index, "", False)
    assert (answer != index, len(answer)) == (masked, len(index))


def test_a_name_that_cannot_be_masked_is_refused() -> None:
    escaped = b'{"manifests": [{"annotations": {"io.containerd.image\\u002ename": "h/a:1"}}]}'
    with pytest.raises(NotCovered):
        old_index(escaped, "", False)


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("localhost:5000/a/b:1", "1"),
        ("localhost:5000/a/b", ""),
        ("h/a@sha256:0", "@"),
        ("h/a:1@sha256:0", "1@"),
        ("short:1", ""),
        ("sha256:0", ""),
    ],
)
def test_the_tag_of_an_export_is_taken_from_the_name(reference: str, tag: str) -> None:
    assert oci_ref_name(reference) == tag
