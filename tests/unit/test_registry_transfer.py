"""How ctr's push runs: its login, its certificates, its progress, and what ends it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from retagging import A, B, image
from scripted_registry import OK, REF, Answering, Host, answering_fixture, pushed  # noqa: F401

from ctr_ferry import errors
from ctr_ferry.images.session import Session
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Login, Registry, RegistryState
from ctr_ferry.registry import http, listener, push_pull
from ctr_ferry.registry.access import RegistryAccesses
from ctr_ferry.registry.results import PulledImage
from ctr_ferry.registry.several import TransferSet
from ctr_ferry.report.outcome import Status
from ctr_ferry.secrets import Secret
from ctr_ferry.shell import Answer

MIB = 1 << 20
PROMPT = b"Password: "  # ctr's, without a newline


def transfer_of(host: Host) -> push_pull.RegistryTransfer:
    session = Session(host)  # type: ignore[arg-type]
    return push_pull.RegistryTransfer(session, Reference.parse(REF), RegistryAccesses(session))


class TestRegistryTransfer:
    ANN = Login("ann", Secret("s3cret"))

    def test_the_password_answers_the_prompt_once(self, answering: Answering) -> None:
        answering(None, A, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [b"\nferry-1 begin push\nPass", PROMPT[4:], b"", b"\nmore\n"]
        pushed(host)
        assert host.typed == ["s3cret"]
        assert "</dev/pts/9 &" in host.texts["push"]
        assert "--user ann" in host.texts["push"]

    @pytest.mark.parametrize("behind", [b"ferry-read: 4096\n", b"some warning\n", b"ferry-read: 1\nferry-read: 2\n"])
    def test_the_prompt_is_answered_although_other_output_follows_at_once(
        self, answering: Answering, behind: bytes
    ) -> None:
        answering(None, A, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [b"\nferry-1 begin push\n" + PROMPT + behind]
        pushed(host)
        assert host.typed == ["s3cret"]

    def test_no_login_is_used_until_the_registry_wants_one(self, answering: Answering) -> None:
        answering(None, A, unasked=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [b"\nferry-1 begin push\n" + PROMPT]
        pushed(host)
        assert host.typed == []
        assert "--user" not in host.texts["push"]

    @pytest.mark.parametrize(
        "detail",
        ["401 Unauthorized", "insufficient_scope: authorization failed", "429 Too Many Requests: toomanyrequests"],
    )
    def test_a_refusal_without_a_login_is_tried_again_with_the_login(self, answering: Answering, detail: str) -> None:
        answering(None, None, A, unasked=self.ANN)
        answers = [Answer(1, b"", f"ctr: unexpected status: {detail}\n"), OK]
        host = Host([image(REF, A)], answers={"push": lambda _: answers.pop(0)})
        pushed(host)
        assert host.pauses == []
        users = ["--user ann" in s.steps["push"] for s in host.scripts if "push" in s.steps]
        assert users == [False, True]

    def test_a_login_does_not_go_to_a_token_service_without_tls(self, answering: Answering) -> None:
        answering(None, unasked=self.ANN).plain_tokens = True
        host = Host([image(REF, A)], answers={"push": Answer(1, b"", "ctr: unexpected status: 401 Unauthorized\n")})
        with pytest.raises(errors.RegistryScheme, match="token service"):
            pushed(host)
        assert ["--user ann" in s.steps["push"] for s in host.scripts if "push" in s.steps] == [False]
        assert host.typed == []

    @pytest.mark.parametrize("hidden", [A, B])
    def test_what_the_registry_hides_without_a_login_is_inspected_before_ctr_uses_the_login(
        self, answering: Answering, hidden: str
    ) -> None:
        answering(None, unasked=self.ANN).hidden = hidden
        host = Host([image(REF, A)], answers={"push": Answer(1, b"", "ctr: unexpected status: 401 Unauthorized\n")})
        if hidden == B:
            with pytest.raises(errors.ReferenceExists):
                pushed(host)
        else:
            assert pushed(host).status is Status.UNCHANGED
        users = ["--user ann" in s.steps["push"] for s in host.scripts if "push" in s.steps]
        assert users == [False]

    def test_what_the_registry_shows_only_to_a_login_is_verified_with_the_login(self, answering: Answering) -> None:
        registry = answering(None, unasked=self.ANN)

        def push(text: str) -> Answer:
            if "--user ann" not in text:
                return Answer(1, b"", "ctr: unexpected status: 401 Unauthorized\n")
            registry.hidden = A
            return OK

        result = pushed(Host([image(REF, A)], answers={"push": push}))
        assert (result.status, result.verified, result.previous_digest) == (Status.CHANGED, "digest", "")

    @pytest.mark.parametrize(("state", "asks"), [(RegistryState.UNRESOLVED, True), (RegistryState.EXPIRED, False)])
    def test_nobody_answers_by_a_name_that_is_nearly_one_of_the_inventory(
        self, answering: Answering, state: RegistryState, *, asks: bool
    ) -> None:
        answering(state)
        host = Host([image(REF, A)])
        host.know(Registry("r.exmaple:5000"))
        with pytest.raises(errors.RegistryError) as raised:
            pushed(host)
        assert ("did you mean r.exmaple:5000" in raised.value.hint) is asks

    @pytest.mark.parametrize("ca_file", [True, False])
    def test_with_a_password_ctr_trusts_only_our_certificates(
        self, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ca_file: bool
    ) -> None:
        monkeypatch.setattr(http, "_of_this_machine", lambda: b"MACHINE")
        (tmp_path / "ca").write_text("OURS")
        registry = Registry("r.example:5000", ca_file=str(tmp_path / "ca") if ca_file else None)
        unknown = Answer(1, b"", "ctr: x509: certificate signed by unknown authority\n")
        for login, tries in ((None, 1), (self.ANN, 2 if ca_file else 1)):
            answering(None, login=login)
            host = Host([image(REF, A)], answers={"push": unknown})
            host.know(registry)
            with pytest.raises(errors.RegistryTls):
                pushed(host)
            steps = [script.steps["push"] for script in host.scripts if "push" in script.steps]
            assert len(steps) == tries
            assert ["OURS" in step for step in steps] == [ca_file] * tries
            assert all(("ca-certificates.crt" in step) == (ca_file and not login) for step in steps)
            assert all(("SSL_CERT_DIR=/dev/null" in step) == bool(login) for step in steps)
            assert "MACHINE" in steps[-1] or not login

    @pytest.mark.parametrize("skip_verify", [False, True])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_with_a_password_ctr_trusts_only_our_certificates_at_a_token_service_whatever_the_registry_speaks(
        self, answering: Answering, monkeypatch: pytest.MonkeyPatch, *, scheme: str, skip_verify: bool
    ) -> None:
        monkeypatch.setattr(http, "_of_this_machine", lambda: b"MACHINE")
        answering(None, A, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK}, version="2.1.9")
        host.know(Registry("r.example:5000", scheme=scheme, skip_verify=skip_verify))
        pushed(host)
        exclusive = scheme == "http" or not skip_verify
        step = host.texts["push"]
        assert ("SSL_CERT_DIR=/dev/null" in step) == ("MACHINE" in step) == exclusive

    def test_a_second_prompt_ends_the_push(self, answering: Answering) -> None:
        answering(None, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [PROMPT, b"\n" + PROMPT]
        with pytest.raises(errors.RegistryUnauthorized):
            pushed(host)
        assert host.typed == ["s3cret"]

    def test_without_a_login_there_is_no_terminal_but_for_1_0(self, answering: Answering) -> None:
        for version, ending in (("1.1.8", "app:1"), ("1.0.3", "</dev/pts/9")):
            answering(None, A)
            host = Host([image(REF, A)], answers={"push": OK}, version=version)
            pushed(host)
            assert host.texts["push"].endswith(ending)

    def test_progress_is_reported(self, answering: Answering) -> None:
        answering(None, A)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [f"layer-{B}: uploading |++--|  1.0 KiB/2.0 KiB\n".encode()]
        pushed(host)
        assert host.moves == [(1024, 2048)]

    def test_a_standstill_ends_the_push_except_while_containerd_unpacks(
        self, answering: Answering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(range(1000))
        monkeypatch.setattr(listener, "time", SimpleNamespace(monotonic=lambda: next(clock), time=time.time))
        host = Host([image(REF, A)], answers={"push": OK})
        bar = f"layer-{A}: uploading |++--|  1.0 KiB/2.0 KiB\n".encode()
        for well in (
            [bar, b"unpacking linux/amd64\n", *[b""] * 20],
            [b"\nferry-" + b"a" * 32 + b" end 0\n", *[b""] * 20],
        ):
            answering(None, A)
            host.prints = well
            pushed(host)
        answering(None, A)
        host.prints = [bar] * 20
        with pytest.raises(errors.RegistryTimeout, match="no answer"):
            pushed(host)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"5", b"[" * MIB, b'{"manifests": 5}', b'{"manifests": [5]}', b'{"config": {}, "layers": {}}',
     b'{"config": {"digest": "x", "size": 1e999}}', b'{"config": {"digest": "x", "size": -1}}',
     b'{"config": {"digest": "x", "size": 1' + b"0" * 400 + b"}}",
     b'{"manifests": [{"digest": "x", "size": 1, "platform": 7}]}',
     b'{"config": {"digest": "x", "size": "' + b"9" * MIB + b'"}}', b"9" * MIB, b"\xff" * MIB],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_has_no_size(answering: Answering, manifest: bytes) -> None:
    registry, host = answering(A), Host([])
    registry.manifest = manifest
    transfer = transfer_of(host)
    assert transfer.contents(None) is None


def test_a_ca_file_that_cannot_be_read_is_an_error_with_a_kind() -> None:
    host = Host([image(REF, A)])
    host.know(Registry("r.example:5000", ca_file="/nowhere.pem"))
    with pytest.raises(errors.RegistryTls, match="ca_file") as caught:
        transfer_of(host)
    assert "/nowhere.pem" in caught.value.detail


def test_the_only_image_of_a_set_that_fails_stands_in_the_list() -> None:
    session = Session(Host([image(REF, A)]))  # type: ignore[arg-type]
    skipped = PulledImage(reference=REF, namespace="k8s.io", digest="", status=Status.SKIPPED, ctr="v1")
    found: TransferSet[Any] = TransferSet(session, [skipped])
    found.items[0].fail(errors.RegistryDenied("no"))
    with pytest.raises(errors.RegistryDenied) as told:
        found.settled("images could not be pulled")
    (one,) = told.value.result.images
    assert (one.reference, one.status, one.error["kind"]) == (REF, Status.FAILED, told.value.kind)
