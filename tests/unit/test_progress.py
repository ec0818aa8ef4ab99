"""Progress is read in all of ctr's formats, and only other output is kept."""

from __future__ import annotations

import pytest
from records import Record
from transfers import TRANSFERS

from ctr_ferry.ctr.progress import Progress

OK = [record for record in TRANSFERS if record.stdout and record.exit == 0]
TYPED = [record for record in TRANSFERS if "typed at the prompt" in record.case]


@pytest.mark.parametrize("record", OK, ids=str)
@pytest.mark.parametrize("step", [1, 7, 4096])
def test_only_what_is_no_progress_is_kept_however_it_comes(record: Record, step: int) -> None:
    progress, data = Progress(), record.stdout.encode()
    kept = b"".join(progress.feed(data[at : at + step]) for at in range(0, len(data), step)) + progress.end()
    assert progress.items
    for line in kept.splitlines():
        # The last two are log lines, as 1.1 and 2.2 draw them on a terminal.
        assert line.startswith((b"Password: ", b"unpacking ", b"done", b"\x1b[31mERRO", b"\x1b[33mWARN")), line
    assert progress.unpacking == (b"unpacking " in data)


@pytest.mark.parametrize("record", TYPED, ids=str)
def test_the_prompt_is_seen_before_its_line_ends(record: Record) -> None:
    progress = Progress()
    before, prompt, _ = record.stdout.partition("Password: ")  # 2.2 and later warn of cgroup v1 before
    progress.feed((before + prompt).encode())
    assert progress.prompts == 1


def test_a_frame_of_a_script_stays_what_it_is() -> None:
    text = b"noise\n\nferry-1 begin push\n\x1b[1A\x1b[2K\r\nferry-1 end 0\n"
    text += b"\nferry-1 begin verify\nREF TYPE\n\nferry-1 end 0\n"
    progress = Progress()
    kept = progress.feed(text) + progress.end()
    assert kept == text.replace(b"\x1b[1A\x1b[2K\r\n", b"")
    assert b"\nferry-1 end 0\n" in kept


def test_a_table_of_images_is_no_progress() -> None:
    row = f"r/a:1 application/vnd.oci.image.manifest.v1+json sha256:{'a' * 64} 3.0 MiB linux/amd64 -\n".encode()
    assert Progress().feed(row) == row


A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
BAR = "|\x1b[32m+++\x1b[0m---|"


@pytest.mark.parametrize(
    "block",
    [
        f"layer-{A}:    uploading      {BAR}    1.0 MiB/2.0 MiB \nconfig-{B}:   done           {BAR} \n",
        f"layer-{A}:    uploading      {BAR}  1.0 MiB/2.0 MiB \r\n\x1b[1A\x1b[2K\rconfig-{B}:   done  {BAR} \r\n",
        f"└──manifest r/a:1@sha\twaiting    \t{BAR}\t\n"
        f"   ├──layer (aaaaaaaaaaaa)   \tuploading  \t{BAR}\t 1.0 MiB/2.0 MiB\t\n"
        "   │  └──config (bbbbbbbbbbbb)             \talready exists\t\n",
    ],
)
def test_bytes_are_counted(block: str) -> None:
    progress = Progress({A: 2 << 20, B: 1000})
    assert progress.feed(block.encode()) == b""
    assert (progress.items[A].done, progress.items[A].total) == (1 << 20, 2 << 20)
    assert progress.items[B].done == 1000


def test_the_total_is_known_once_every_size_is() -> None:
    progress = Progress()
    progress.feed(f"layer-{A}:    waiting      {BAR}\n".encode())
    assert (progress.done, progress.total) == (0, None)
    progress.feed(f"layer-{A}:    uploading      {BAR}  512.0 KiB/1.0 MiB\n".encode())
    assert (progress.done, progress.total) == (512 << 10, 1 << 20)
    progress.feed(f"layer-{A}:    done      {BAR}\n".encode())
    assert (progress.done, progress.total) == (1 << 20, 1 << 20)


def test_where_ctr_tells_no_layers_what_it_reads_counts_but_not_its_waking_up() -> None:
    progress = Progress({A: 10_000, B: 1000})
    assert progress.feed(b"ferry-read: 5000\n") == b""
    assert (progress.done, progress.total) == (5000, 11_000)
    for count in range(5002, 9000, 2):
        progress.feed(f"ferry-read: {count}\n".encode())
    assert progress.done == 5000
    progress.feed(b"ferry-read: 99000\n")
    assert (progress.done, progress.total) == (11_000, 11_000)


def test_an_endless_line_is_not_hoarded() -> None:
    progress = Progress()
    kept = progress.feed(b"x" * 100_000)
    assert len(kept) == 100_000
    assert progress.end() == b""


def test_an_hour_of_blocks_takes_no_more_memory_than_one() -> None:
    progress, block = Progress(), f"layer-{A}: uploading {BAR} 1.0 MiB/2.0 MiB\nelapsed: 1 s total: 1.0 Mi (1 MiB/s)\n"
    assert b"".join(progress.feed(block.encode()) for _ in range(36_000)) == b""
    assert len(progress.items) == 1
