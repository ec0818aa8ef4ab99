"""The listing of every version of ctr is parsed, and names are found in it."""

from __future__ import annotations

from itertools import groupby, product

import pytest
from records import VERSIONS, Record, listings, record

from ctr_ferry.ctr.listing import Image, Listing, parse_digests, parse_images
from ctr_ferry.errors import GarbledAnswer
from ctr_ferry.oci.descriptor import Platform

HEAD = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
OCI = "application/vnd.oci.image.manifest.v1+json"


def digest(letters: str) -> str:
    return "sha256:" + (letters * 64)[:64]


def by_columns(table: str) -> list[list[str]]:
    """The cells of a table, cut where the words of its header begin: another way than that of the parser."""
    head, *rows = table.splitlines()
    starts = [head.index(word) for word in ("REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS")]
    return [[row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in rows]


@pytest.mark.parametrize("recorded", listings(), ids=str)
def test_every_versions_listing_is_parsed_cell_by_cell(recorded: Record) -> None:
    images = parse_images(recorded.stdout)
    assert [
        [i.name, i.media_type, i.digest, i.size, i.platforms, ",".join(sorted(i.labels)) or "-"] for i in images
    ] == by_columns(recorded.stdout)


@pytest.mark.parametrize("version", VERSIONS)
def test_cris_label_is_found_on_every_version(version: str) -> None:
    (labelled,) = parse_images(record(version, "images ls, one image with labels").stdout)
    (plain,) = parse_images(record(version, "images ls, one image").stdout)
    assert labelled.cri_managed and not plain.cri_managed
    assert labelled.labels == {"io.cri-containerd.image=managed", "team=core"}
    assert labelled.others_labels == ("team=core",)
    assert plain.labels == frozenset()


def test_labels_may_have_spaces_and_may_name_a_digest() -> None:
    row = f"r.example/a:1 {OCI} {digest('a')} 3.0 MiB linux/amd64 maintainer=A. B. C <a@b>,from={digest('b')}  \n"
    (image,) = parse_images(HEAD + row)
    assert image.digest == digest("a")
    assert image.labels == {"maintainer=A. B. C <a@b>", f"from={digest('b')}"}


def table(*rows: tuple[str, ...]) -> str:
    """The table that ctr prints of these cells; a cell may have any text in it, also tabs and line breaks."""
    text = "".join("".join(f"{cell}\t" for cell in row) + "\n" for row in [HEAD.split(), *rows])
    parts = [[line.split("\t") for line in part.split("\n")] for part in text.split("\f")]
    for lines in parts:  # a form feed ends a line and all columns
        aligned(lines, 0)
    return "\n".join("".join(cells) for lines in parts for cells in lines)


def aligned(lines: list[list[str]], column: int) -> None:
    """Pads as Go's tabwriter does: a column is a block of adjacent lines that each end a cell there by a tab."""
    blocks = groupby(lines, key=lambda cells: len(cells) > column + 1)
    for block in [list(group) for ends, group in blocks if ends]:
        aligned(block, column + 1)
        width = max(len(cells[column]) for cells in block) + 1
        for cells in block:
            cells[column] = cells[column].ljust(width)


@pytest.mark.parametrize("recorded", listings(), ids=str)
def test_ctr_aligns_as_the_tables_of_these_tests(recorded: Record) -> None:
    assert table(*map(tuple, by_columns(recorded.stdout))) == recorded.stdout


def test_a_digest_in_a_name_or_a_label_is_not_taken_for_the_target() -> None:
    name = f"a T {digest('c')} 1.0 MiB linux/amd64 -"
    rows = [(name, OCI, digest("a"), "3.0 MiB", "-", f"x= {digest('b')}"), ("b", OCI, digest("b"), "3.0 MiB", "-", "-")]
    first, second = parse_images(table(*rows))
    assert (first.name, first.digest, first.labels) == (name, digest("a"), {f"x= {digest('b')}"})
    assert (second.name, second.digest) == ("b", digest("b"))


def test_a_row_that_could_be_parsed_in_two_ways_is_garbled() -> None:
    with pytest.raises(GarbledAnswer):
        parse_images(f"{HEAD}a T {digest('c')} 1 MiB - - {OCI} {digest('a')} 3.0 MiB - -\n")


def test_several_spaces_in_a_name_stay() -> None:
    assert parse_images(f"{HEAD}a  b {OCI} {digest('a')} 3.0 MiB - -\n")[0].name == "a  b"


@pytest.mark.parametrize("name", ["one\ntwo", "\ntwo", "two\n"])
def test_a_line_break_in_a_name_or_label_is_garbled_with_its_namespace(name: str) -> None:
    for row in (f"{name} {OCI} {digest('a')} 3.0 MiB - -\n", f"x {OCI} {digest('a')} 3.0 MiB - {name},b=c\n"):
        with pytest.raises(GarbledAnswer, match="namespace ns") as garbled:
            Listing.parse("ns", HEAD + row)
        assert "fab -H HOST doctor" in garbled.value.hint and garbled.value.detail


PLAIN = ("r.example/a:1", OCI, digest("a"), "3.0 MiB", "linux/amd64", "-")
FORGED = ("r.example/forged:1", OCI, digest("b"), "3.0 MiB", "linux/amd64", "team=core")


@pytest.mark.parametrize(
    ("label", "tabs"),
    [
        *product(["k=v\n{}", "k=v \n{}", "k=v\n{} ", "k=v\n{} \n", "k=v\f{}"], range(6)),
        *(("k=v\t\n{}", tabs) for tabs in range(5)),
    ],
)
def test_a_row_that_a_label_forges_is_garbled(label: str, tabs: int) -> None:
    *first, last = FORGED
    cells = [*first[:tabs], " ".join([*first[tabs:], last])]
    forger = ("r.example/b:1", OCI, digest("c"), "3.0 MiB", "linux/amd64", label.format("\t".join(cells)))
    with pytest.raises(GarbledAnswer, match="another shape"):
        parse_images(table(PLAIN, forger, PLAIN))


def test_no_table_tells_a_row_that_is_forged_with_all_tabs_from_another_image() -> None:
    forger = ("r.example/b:1", OCI, digest("c"), "3.0 MiB", "linux/amd64", "k=v\t\n" + "\t".join(FORGED))
    assert table(PLAIN, forger) == table(PLAIN, (*forger[:5], "k=v"), FORGED)


def test_a_row_that_a_name_forges_without_tabs_is_garbled() -> None:
    for name in (" ".join(FORGED) + "\nb", " ".join(FORGED) + " \n" + " ".join(FORGED) + "\nb"):
        with pytest.raises(GarbledAnswer, match="another shape"):
            parse_images(table(PLAIN, (name, *FORGED[1:])))


def test_a_row_with_characters_of_any_width_is_ctrs_own() -> None:
    names = ["é/ü:1", "名:1", "a?b:1"]
    printed = table(*((name, *PLAIN[1:]) for name in names))
    assert [image.name for image in parse_images(printed)] == names
    # A byte that is no UTF-8 is one character to ctr and four here.
    assert [image.name for image in parse_images(printed.replace("?", "\\xc3"))] == [*names[:2], "a\\xc3b:1"]


def test_names_by_digest_and_cris_records_are_rows_like_others() -> None:
    rows = [
        f"r.example/a@{digest('a')} {OCI} {digest('a')} 3.0 MiB linux/amd64 -",
        f"{digest('c')} {OCI} {digest('a')} 3.0 MiB linux/amd64 io.cri-containerd.image=managed",
    ]
    by_digest, record = parse_images(HEAD + "\n".join(rows) + "\n")
    assert by_digest.name == f"r.example/a@{digest('a')}" and by_digest.user_named
    assert record.name == digest("c") and not record.user_named


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Last login: today\n",
        "REF TYPE\n",
        f"{HEAD}r.example/a:1 {OCI}\n",
        f"{HEAD}a {OCI} sha256:abc 3.0 MiB - -\n",
    ],
)
def test_another_table_is_garbled(text: str) -> None:
    with pytest.raises(GarbledAnswer) as garbled:
        parse_images(text)
    assert garbled.value.detail


def test_a_header_alone_is_no_images() -> None:
    assert parse_images(HEAD) == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_digests_of_content_are_parsed(version: str) -> None:
    lines = record(version, "content ls -q, one image").stdout.splitlines()
    assert parse_digests(lines) == set(lines) and lines
    assert parse_digests(record(version, "content ls -q, empty").stdout.splitlines()) == frozenset()


def image(name: str, target: str = digest("a")) -> Image:
    return Image(name, OCI, target, "1 MiB", "linux/amd64", frozenset())


LISTING = Listing(
    "k8s.io",
    (
        image(digest("c")),
        image("docker.io/library/busybox:1"),
        image("docker.io/library/busybox:latest", digest("b")),
        image("busybox:odd", digest("d")),
        image("172.1.1.34:5000/library/plugin:v1"),
        image("r.example/team/plugin:v2", digest("d")),
        image(f"r.example/pinned@{digest('d')}", digest("d")),
        image(digest("e"), digest("f")),
    ),
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("172.1.1.34:5000/library/plugin:v1", "172.1.1.34:5000/library/plugin:v1"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("library/busybox:1", "docker.io/library/busybox:1"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:odd", "busybox:odd"),
        (digest("a"), "docker.io/library/busybox:1"),
        (digest("c"), digest("c")),
        (digest("f"), digest("e")),
        (f"172.1.1.34:5000/library/plugin@{digest('a')}", "172.1.1.34:5000/library/plugin:v1"),
        (f"elsewhere.example/x@{digest('a')}", "docker.io/library/busybox:1"),
        (f"r.example/pinned@{digest('d')}", f"r.example/pinned@{digest('d')}"),
        (f"r.example/team/plugin:v9@{digest('d')}", "r.example/team/plugin:v2"),
        ("busybox:2", None),
        ("plugin:v1", None),
        (digest("0"), None),
        (f"busybox@{digest('0')}", None),
        ("docker.io/library/busybox:1 ", None),
    ],
)
def test_a_name_is_found_exactly_then_in_its_full_form_then_by_digest(wanted: str, found: str | None) -> None:
    got = LISTING.find(wanted)
    assert (got.name if got else None) == found


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("172.1.1.34:5000/*", ["172.1.1.34:5000/library/plugin:v1"]),
        ("*plugin*", ["172.1.1.34:5000/library/plugin:v1", "r.example/team/plugin:v2"]),
        ("sha256:*", []),
        ("*BUSYBOX*", []),
        ("busybox", []),
    ],
)
def test_a_glob_fits_whole_names_and_never_cris_records(glob: str, names: list[str]) -> None:
    assert [i.name for i in LISTING.match(glob)] == names
    assert all(i.user_named for i in LISTING.match("*"))
    assert len(LISTING.match("*")) == 6


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("dead.example:5000/library/plugin:v1", "172.1.1.34:5000/library/plugin:v1"),
        ("plugin", "172.1.1.34:5000/library/plugin:v1"),
        ("docker.io/library/busybox:2", "docker.io/library/busybox:1"),
        ("docker.io/library/busibox:1", "docker.io/library/busybox:1"),
    ],
)
def test_close_names_start_with_the_same_repository(wanted: str, first: str) -> None:
    close = LISTING.close_to(wanted)
    assert close[0] == first
    assert len(close) <= 3
    assert not any(name.startswith("sha256:") for name in close)


def test_the_same_repository_comes_before_a_similar_name() -> None:
    listing = Listing("k8s.io", (image("dead.example/library/plugim:v1"), image("z.example/x/plugin:v9")))
    assert listing.close_to("dead.example/library/plugin:v1") == [
        "z.example/x/plugin:v9",
        "dead.example/library/plugim:v1",
    ]


@pytest.mark.parametrize(
    ("listed", "asked", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64,linux/arm/v7", "linux/arm", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/amd64", "linux/arm64", False),
        ("-", "linux/arm64", True),
    ],
)
def test_platforms_are_compared_with_their_variants(listed: str, asked: str, fits: bool) -> None:
    image = Image("r/a:1", "m", f"sha256:{'a' * 64}", "1 KiB", listed, frozenset())
    assert image.is_for(Platform.parse(asked)) is fits


def test_nothing_is_close_to_something_else() -> None:
    assert LISTING.close_to("q.example/zzz:9") == []


def test_a_glob_carries_a_name_with_a_digest_where_the_image_has_none_with_a_tag() -> None:
    pinned = f"r.example/a@{digest('a')}"
    listing = Listing("k8s.io", (image("r.example/a:1"), image(pinned), image("r.example/B:1"), image("other/a:1")))
    assert [each.name for each in listing.carried("r.example/*")] == ["r.example/a:1"]
    assert [each.name for each in listing.carried("*@*")] == [pinned]
    assert [each.name for each in listing.match("r.example/*")] == ["r.example/a:1", pinned, "r.example/B:1"]
    untagged = Listing("k8s.io", (image(pinned), image("other/a:1"), image("r.example/B:1")))
    assert [each.name for each in untagged.carried("r.example/*")] == [pinned]


def test_of_the_names_of_a_digest_those_that_are_references_come_first() -> None:
    pinned = f"r.example/a@{digest('a')}"
    listing = Listing("k8s.io", (image("--all"), image(digest("c")), image(pinned), image("r.example/a:1")))
    assert [each.name for each in listing.by_digest(digest("a"))] == ["r.example/a:1", pinned, "--all", digest("c")]
