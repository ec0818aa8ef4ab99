"""References are parsed in docker's familiar forms; what people paste, and what must not reach a shell, is refused."""

from __future__ import annotations

import json

import pytest
from records import DATA

from ctr_ferry.errors import BadReference
from ctr_ferry.oci.reference import Reference, is_digest, parse_domain

CASES = [json.loads(line) for line in (DATA / "references.jsonl").read_text().splitlines()]
DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize("case", [c for c in CASES if "full" in c], ids=lambda c: c["text"][:60])
def test_a_reference_has_one_full_form(case: dict[str, str]) -> None:
    reference = Reference.parse(case["text"])
    assert str(reference) == case["full"]
    assert reference.text == case["text"]
    assert str(Reference.parse(str(reference))) == case["full"]


@pytest.mark.parametrize("case", [c for c in CASES if "refused" in c], ids=lambda c: repr(c["text"])[:60])
def test_what_is_no_reference_is_refused_with_the_part_that_is_wrong(case: dict[str, str]) -> None:
    with pytest.raises(BadReference) as refused:
        Reference.parse(case["text"])
    assert case["refused"] in refused.value.message
    assert refused.value.hint
    assert refused.value.message.isprintable()


def test_the_parts_of_a_reference_are_apart() -> None:
    reference = Reference.parse(f"172.1.1.34:5000/library/app:v1@{DIGEST}")
    assert (reference.domain, reference.path, reference.tag, reference.digest) == (
        "172.1.1.34:5000",
        "library/app",
        "v1",
        DIGEST,
    )
    assert reference.repository == "172.1.1.34:5000/library/app"


def test_a_reference_takes_another_tag_or_registry_and_keeps_the_rest() -> None:
    reference = Reference.parse("old.example:5000/a/b:1")
    assert str(reference.with_tag("2")) == "old.example:5000/a/b:2"
    assert str(reference.with_domain("new.example")) == "new.example/a/b:1"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (DIGEST, True),
        ("sha512:" + "0" * 128, True),
        (DIGEST[:-1], False),
        (DIGEST + "0", False),
        (DIGEST.upper(), False),
        ("ab" * 32, False),
        (f"{DIGEST}\n", False),
        ("", False),
    ],
)
def test_a_digest_is_complete_or_none(text: str, is_one: bool) -> None:
    assert is_digest(text) is is_one


@pytest.mark.parametrize("text", ["registry.example", "node1:5000", "localhost", "10.0.0.1:80", "[::1]:5000"])
def test_a_registry_host_stands_alone(text: str) -> None:
    assert parse_domain(text) == text


@pytest.mark.parametrize(
    "text", ["", "https://registry.example", "registry.example/app", "registry", "a b", "reg.example:x", "$(id).x"]
)
def test_what_is_no_registry_host_is_refused(text: str) -> None:
    with pytest.raises(BadReference) as refused:
        parse_domain(text)
    assert refused.value.hint
