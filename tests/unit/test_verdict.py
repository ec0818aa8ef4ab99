"""A name counts as given only by the listing afterwards; CRI's records that came with it are removed."""

from __future__ import annotations

import pytest

from ctr_ferry import errors
from ctr_ferry.ctr.commands import CRI_MANAGED
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.methods import TAKEN
from ctr_ferry.ctr.verdict import Verdict, exists, judge, records_left, unproved
from ctr_ferry.oci.descriptor import OCI_MANIFEST
from ctr_ferry.shell import Answer

A, B, CONFIG, OTHER = (f"sha256:{letter * 64}" for letter in "abcd")
NAME = "new.example/app:1"
FINE, TAKEN_ALREADY, FAILED = Answer(0, b"", ""), Answer(TAKEN, b"", ""), Answer(1, b"", "ctr: something odd")
EXISTS = Answer(1, b"", f'ctr: image "{NAME}": already exists')
NOT_FOUND = Answer(1, b"", f"ctr: content digest {CONFIG}: not found")


def image(name: str = NAME, digest: str = A, *labels: str) -> Image:
    return Image(name, OCI_MANIFEST, digest, "3.0 MiB", "linux/amd64", frozenset(labels))


RIGHT, WRONG, MANAGED = image(), image(NAME, B), image(NAME, A, CRI_MANAGED)


def verdict(answer: Answer, now: Image | None, *, cri_managed: bool = False, tolerant: bool = False) -> Verdict:
    return judge(NAME, A, answer, now, namespace="k8s.io", cri_managed=cri_managed, tolerant=tolerant)


@pytest.mark.parametrize(
    ("answer", "now", "more", "kind", "ours"),
    [
        (FINE, RIGHT, {}, None, True),
        (FINE, MANAGED, {"cri_managed": True}, None, True),
        (FINE, RIGHT, {"cri_managed": True}, errors.VerifyFailed, True),
        (FINE, None, {}, errors.VerifyFailed, False),
        (FINE, WRONG, {}, errors.VerifyFailed, False),
        (TAKEN_ALREADY, RIGHT, {}, None, False),
        (TAKEN_ALREADY, WRONG, {}, errors.ReferenceExists, False),
        (TAKEN_ALREADY, None, {}, errors.ReferenceExists, False),
        (EXISTS, RIGHT, {}, None, False),
        (EXISTS, RIGHT, {"cri_managed": True}, None, False),
        (EXISTS, WRONG, {"tolerant": True}, errors.ReferenceExists, False),
        (FAILED, RIGHT, {}, errors.CommandFailed, True),
        (FAILED, WRONG, {}, errors.CommandFailed, False),
        (FAILED, None, {}, errors.CommandFailed, False),
        (NOT_FOUND, RIGHT, {}, errors.ContentMissing, True),
        (FAILED, RIGHT, {"tolerant": True}, None, True),
        (FAILED, WRONG, {"tolerant": True}, errors.CommandFailed, False),
        (FAILED, None, {"tolerant": True}, errors.CommandFailed, False),
        (FAILED, RIGHT, {"tolerant": True, "cri_managed": True}, errors.VerifyFailed, True),
    ],
)
def test_a_name_is_judged_by_what_the_host_says_afterwards(
    answer: Answer, now: Image | None, more: dict[str, bool], kind: type[errors.FerryError] | None, ours: bool
) -> None:
    detail = verdict(answer, now, **more)
    assert (type(detail.error) if detail.error else None, detail.ours) == (kind, ours)


def test_another_images_name_that_exists_is_no_excuse() -> None:
    answer = Answer(1, b"", 'ctr: image "new.example/app:10": already exists')
    assert isinstance(verdict(answer, RIGHT).error, errors.CommandFailed)


def test_each_wrong_end_says_what_it_saw() -> None:
    gone = verdict(Answer(0, b"", "ctr: odd"), None).error
    assert gone and "is not there" in gone.message and "odd" in gone.detail
    elsewhere = verdict(FINE, WRONG).error
    assert elsewhere and A in elsewhere.detail and B in elsewhere.detail and "--force" in elsewhere.hint
    unseen = verdict(FINE, RIGHT, cri_managed=True).error
    assert unseen and "CRI did not label" in unseen.message
    taken = verdict(TAKEN_ALREADY, None).error
    assert taken and "gone again" in taken.detail and A in taken.detail


def test_the_error_for_an_existing_name_has_both_digests_and_the_way_out() -> None:
    error = exists(NAME, "k8s.io", B, A)
    assert NAME in error.message and "k8s.io" in error.message
    assert error.detail == f"there {B}\nsource {A}" and "--force" in error.hint


def test_cris_records_are_left_over_where_no_name_needs_them_and_they_were_not_there_before() -> None:
    record, theirs = image(CONFIG, A), image(OTHER, A)
    before, after = Listing("k8s.io", (theirs,)), Listing("k8s.io", (record, theirs, image("sha256:" + "e" * 64, B)))
    assert records_left({A}, before, after) == [CONFIG]
    assert records_left({B}, before, Listing("k8s.io", (record,))) == []
    assert records_left({A}, before, Listing("k8s.io", (record, RIGHT))) == []


@pytest.mark.parametrize(("existed", "now"), [(True, "may point at either image now"), (False, "was removed again")])
def test_a_name_that_could_not_be_verified_was_removed_only_if_it_was_new(existed: bool, now: str) -> None:
    assert now in unproved(NAME, existed=existed).message
