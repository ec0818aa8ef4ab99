"""What pull decides, on hosts and registries that only answer: what is hard to bring about on real ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cut_off import put_ctr
from letters import unhashed  # noqa: F401
from retagging import CHILD, CONFIG, INDEX, MANAGED, MANIFEST, OTHER, A, B, image, table
from scripted_registry import OK, REF, Answering, Host, answering_fixture, cut, here, pulled, stage  # noqa: F401

from ctr_ferry import errors
from ctr_ferry.images import content
from ctr_ferry.images.content import checked
from ctr_ferry.oci import layout
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from ctr_ferry.oci.registry import RegistryState
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from tasks import pull

C = f"sha256:{'c' * 64}"


class TestPull:
    def test_brings_what_the_registry_has(self, answering: Answering) -> None:
        answering(A)
        result = pulled(Host([], answers=here(image(REF, A))))
        assert (result.status, result.digest, result.method, result.verified) == (Status.CHANGED, A, "pull", "digest")

    def test_does_nothing_where_the_host_has_the_whole_image(self, answering: Answering) -> None:
        answering(A)
        host = Host([image(REF, A)], answers=here(image(REF, A)))
        assert pulled(host).status is Status.UNCHANGED
        assert "pull" not in host.texts

    DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 100 {used} {free} 50% /\n"
    LAYERS = json.dumps(
        {"config": {"digest": CONFIG, "size": 2}, "layers": [{"mediaType": "layer+gzip", "digest": C, "size": 4096}]}
    ).encode()

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_refuses_what_does_not_fit_before_anything_is_pulled(self, answering: Answering, dry_run: bool) -> None:
        answering(A).manifest = self.LAYERS
        full = {"room": Answer(0, self.DF.format(used=97, free=3).encode(), "")}
        host = Host([], answers=here(image(REF, A)) | full, dry_run=dry_run)
        with pytest.raises(errors.DiskFull, match=r"4\.0 KiB are needed, and 3\.0 KiB are free on /"):
            pulled(host)
        assert "pull" not in host.texts
        host = Host([], answers=here(image(REF, A)) | full | {"has-0": Answer(0, C.encode(), "")}, dry_run=dry_run)
        assert pulled(host).status is Status.CHANGED  # the layer is there already

    @pytest.mark.parametrize(("policy", "fits"), [("isolated", False), ("shared", True), ("", True)])
    def test_counts_what_another_namespace_has_only_where_it_would_share_it(
        self, answering: Answering, policy: str, fits: bool
    ) -> None:
        answering(A).manifest = self.LAYERS
        answers = {
            "room": Answer(0, self.DF.format(used=97, free=3).encode(), ""),
            "sharing": Answer(0, f"{policy}\n".encode(), ""),
            "has-0": OK,
            "has-1": Answer(0, C.encode(), ""),
        }
        host = Host([], answers=here(image(REF, A)) | answers, dry_run=True, elsewhere={"moby": []})
        with contextlib.nullcontext() if fits else pytest.raises(errors.DiskFull):
            assert pulled(host).status is Status.CHANGED

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_reports_that_the_unpacked_image_may_not_fit(self, answering: Answering, dry_run: bool) -> None:
        answering(A).manifest = self.LAYERS
        little = {"room": Answer(0, self.DF.format(used=90, free=10).encode(), "")}
        result = pulled(Host([], answers=here(image(REF, A)) | little, dry_run=dry_run))
        needed = "4.0 KiB, and about 12.0 KiB more when unpacked are needed, and 10.0 KiB are free on /"
        assert result.notes[0] == f"it may not fit: {needed}"
        assert result.notes[1:] == ((f"would move up to 4.0 KiB; {needed}",) if dry_run else ())
        room = {"room": Answer(0, self.DF.format(used=10, free=90).encode(), "")}
        assert pulled(Host([], answers=here(image(REF, A)) | room)).notes == ()

    def test_reads_one_manifest_and_no_more_where_there_is_plenty_of_space(self, answering: Answering) -> None:
        registry, much = answering(A), self.DF.format(used=10, free=1 << 27)  # KiB
        tops = iter([self.LAYERS])  # registries count that
        registry.read = lambda *_: next(tops)  # type: ignore[method-assign]
        assert pulled(Host([], answers=here(image(REF, A)) | {"room": Answer(0, much.encode(), "")})).notes == ()

    def test_pulls_again_what_the_host_has_only_in_part(self, answering: Answering) -> None:
        answering(A)
        partly = here(image(REF, A), check="incomplete (2/3)")
        host = Host([image(REF, A)], answers=partly | {"after": table()})
        with pytest.raises(errors.ContentMissing):
            pulled(host)
        assert stage(host, A) in host.texts["pull"]  # a tag that moves now takes no name along
        assert " tag " not in host.texts["pull"] and " import " not in host.texts["pull"]

    def test_completes_a_partial_image_by_digest_under_the_same_name(self, answering: Answering) -> None:
        answering(A)
        name = f"r.example:5000/app@{A}"
        partly = here(image(name, A), check="incomplete (2/3)")
        host = Host([image(name, A)], answers=partly | {"after": table()})
        with pytest.raises(errors.ContentMissing):
            pulled(host, ref=name)
        assert "images tag" not in host.texts["pull"]

    @pytest.mark.parametrize("platform", ["linux/amd64/v3", "linux/amd64"])
    def test_accepts_a_platform_variant_that_containerd_accepts(self, answering: Answering, platform: str) -> None:
        answering(A)
        visible = Answer(0, f"{A}\n{CONFIG}\n".encode(), "")
        made = pulled(Host([], answers=here(image(REF, A), visible=visible)), platform=platform)
        assert made.status is Status.CHANGED

    def test_of_another_platform_is_refused(self, answering: Answering) -> None:
        answering(A)
        host = Host([], answers=here(image(REF, A)) | {"after": table()})
        with pytest.raises(errors.PlatformMissing, match="not for linux/arm64"):
            pulled(host, platform="linux/arm64")

    def test_of_a_missing_image_fails_before_any_script_runs(self, answering: Answering) -> None:
        answering(None)
        host = Host([])
        with pytest.raises(errors.RepositoryNotFound):
            pulled(host)
        assert not host.scripts

    def test_a_tag_that_moved_is_refused(self, answering: Answering) -> None:
        answering(B)
        host = Host([])
        with pytest.raises(errors.Drift) as caught:
            pulled(host, digest=A)
        assert f"r.example:5000/app@{A}" in caught.value.hint
        assert not host.scripts

    @pytest.mark.parametrize("version", ["1.3.0", "1.6.20", "2.1.9"])
    def test_of_a_tag_that_moves_meanwhile_gives_the_wanted_digest(self, answering: Answering, version: str) -> None:
        answering(A)
        host = Host([], version=version, answers=here(image(REF, A)))
        assert pulled(host).method == "pull"
        (script,) = [script for script in host.scripts if "pull" in script.steps]
        assert re.findall(r" images pull (?:--\S+ )*(\S+);", script.steps["pull"]) == [stage(host, A)]
        assert re.search(rf" images tag (--local )?{re.escape(stage(host, A))} {REF} ", script.steps["pull"])
        assert stage(host, A) in script.cleanup

    @pytest.mark.parametrize(
        ("verb", "when"), [("pull", "after"), ("tag", "before"), ("tag", "after"), ("check", "after")]
    )
    def test_that_is_cut_off_removes_its_names(
        self, answering: Answering, verb: str, when: str, tmp_path: Path
    ) -> None:
        answering(A)
        script = self.script(Host([], answers=here(image(REF, A))), tmp_path)
        assert cut(script, tmp_path, CUT=verb, CUT_AT=when, UNPACKED="false") == []

    def test_that_fails_removes_its_names(self, answering: Answering, tmp_path: Path) -> None:
        answering(A)
        script = self.script(Host([], answers=here(image(REF, A))), tmp_path)
        assert cut(script, tmp_path, UNPACKED="false") == []
        assert cut(script, tmp_path) == [f"{REF} {A}"]

    @pytest.mark.parametrize(("whole", "left"), [("true", [f"{REF} {A}"]), ("false", [])])
    def test_that_is_cut_off_without_a_stage_leaves_a_name_that_is_whole(
        self, answering: Answering, whole: str, left: list[str], tmp_path: Path
    ) -> None:
        answering(A)
        script = self.script(Host([], version="1.2.6", answers=here(image(REF, A))), tmp_path)
        assert cut(script, tmp_path, CUT="pull", CUT_AT="after", PULLED=A, UNPACKED=whole) == left
        (tmp_path / "cut").unlink()
        assert cut(script, tmp_path, CUT="pull", CUT_AT="before", OTHER=f"{REF} {B} -") == [f"{REF} {B}"]

    def test_by_digest_leaves_the_name_that_kubelet_gave_meanwhile(self, answering: Answering, tmp_path: Path) -> None:
        name = f"r.example:5000/app@{A}"
        for version, unpacked in (("1.6.20", "false"), ("2.1.9", "false"), ("1.2.6", "true")):
            answering(A)
            host = Host([], version=version, answers=here(image(name, A)))
            script = self.script(host, tmp_path, ref=f"{REF}@{A}")
            env = {"UNPACKED": unpacked, "OTHER": f"{name} {A} own=1", "CUT": "pull", "CUT_AT": "before"}
            for how in ({}, {"UNCUT": "1"}):
                (tmp_path / "names").write_text("")
                (tmp_path / "cut").unlink(missing_ok=True)
                assert cut(script, tmp_path, **env, **how) == [f"{name} {A}"], (version, how)

    def test_that_moves_a_name_never_loses_it(self, answering: Answering, tmp_path: Path) -> None:
        answering(A)
        script = self.script(Host([image(REF, B)], answers=here(image(REF, A))), tmp_path, force=True)
        for verb, when in (("pull", "after"), ("import", "before"), ("import", "between"), ("import", "after")):
            (tmp_path / "cut").unlink(missing_ok=True)
            (tmp_path / "names").write_text(f"{REF} {B} own=1\n")
            (name,) = cut(script, tmp_path, CUT=verb, CUT_AT=when)
            assert name in (f"{REF} {A}", f"{REF} {B}")

    @pytest.mark.parametrize("version", ["1.1.8", "1.2.6", "1.6.20", "2.1.9"])
    def test_a_moved_name_that_does_not_prove_right_goes_back(
        self, answering: Answering, version: str, tmp_path: Path
    ) -> None:
        answering(A)
        host = Host([image(REF, B)], version=version, answers=here(image(REF, A)))
        script = self.script(host, tmp_path, force=True)
        for right, digest, env in ((True, A, {}), (False, B, {"UNPACKED": "false"}), (False, B, {"STATUS": "bad"})):
            (tmp_path / "names").write_text(f"{REF} {B} own=1\n")
            assert cut(script, tmp_path, **env) == [f"{REF} {digest}"], right

    @pytest.mark.parametrize(("after", "words"), [(B, f"at {B} again"), (A, f"at {A} now, and no longer at {B}")])
    def test_an_error_says_what_a_moved_name_that_did_not_prove_right_points_at(
        self, answering: Answering, after: str, words: str
    ) -> None:
        answering(A)
        lacking = here(image(REF, A), check="incomplete (2/3)") | {"kept": OK, "back": table(image(REF, after))}
        with pytest.raises(errors.ContentMissing) as caught:
            pulled(Host([image(REF, B)], answers=lacking), force=True)
        assert caught.value.detail.endswith(f"{REF} points {words}")

    def script(self, host: Host, folder: Path, **options: Any) -> Script:
        """What would pull there."""
        put_ctr(folder)
        pulled(host, **options)
        return next(script for script in host.scripts if "pull" in script.steps)

    def test_without_a_stage_reports_another_digest(self, answering: Answering) -> None:
        answering(A)
        host = Host([], version="1.2.6", answers=here(image(REF, B), kept=Answer(0, b"", "")))
        with pytest.raises(errors.VerifyFailed, match="another digest"):
            pulled(host, digest=A)

    @pytest.mark.parametrize("exit_", [Answer(75, b"", ""), Answer(1, b"", f'ctr: image "{REF}": already exists')])
    def test_reports_a_name_that_somebody_else_gave_meanwhile(self, answering: Answering, exit_: Answer) -> None:
        answering(A)
        nothing = Answer(0, b"", "")
        same = pulled(Host([], answers=here(image(REF, A), pull=exit_, kept=nothing)))
        assert (same.status, same.method) == (Status.UNCHANGED, "") and "somebody else" in same.notes[0]
        with pytest.raises(errors.ReferenceExists):
            pulled(Host([], answers=here(image(REF, B), pull=exit_, kept=nothing)))

    def test_that_did_not_prove_right_on_the_host_is_an_error(self, answering: Answering) -> None:
        answering(A)
        with pytest.raises(errors.VerifyFailed, match="was given, but"):
            pulled(Host([], answers=here(image(REF, A), kept=Answer(0, b"", ""))))

    def test_of_an_artifact_is_done_once_more_without_unpacking(self, answering: Answering) -> None:
        config = {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": CONFIG, "size": 2}
        chart = json.dumps({"config": config}).encode()
        answering(A)
        failed = Answer(1, b"", "ctr: mismatched image rootfs and manifest layers\n")
        host = Host([], answers=here(pull=failed, top=Answer(0, chart, "")))
        with pytest.raises(errors.CommandFailed):
            pulled(host)
        first, second = (script.steps["pull"] for script in host.scripts if "pull" in script.steps)
        assert " images pull " in first and " content fetch --plain-http " in second
        there = image(REF, A)
        visible = Answer(0, f"{A}\n{CONFIG}\n".encode(), "")
        whole = here(there, visible=visible, check="complete (1/1)")
        unpacked = Answer(0, whole["check"].stdout.replace(b"true", b"false"), "")
        host = Host([there], blobs={A: chart}, answers=whole | {"check": unpacked})
        assert pulled(host).status is Status.UNCHANGED

    def test_a_name_that_points_elsewhere_stays_without_force(self, answering: Answering) -> None:
        answering(A)
        host = Host([image(REF, B)])
        with pytest.raises(errors.ReferenceExists):
            pulled(host)
        assert not host.scripts

    def test_with_force_moves_the_name_in_the_last_step(self, answering: Answering) -> None:
        answering(A)
        host = Host([image(REF, B, "pinned=yes")], answers=here(image(REF, A)))
        result = pulled(host, force=True)
        assert (result.method, result.previous_digest) == ("stage", B)
        assert f"  replaces {B}" in result.lines() and "pinned=yes" in result.notes[0]
        (script,) = [script for script in host.scripts if "pull" in script.steps]
        first, second = script.steps["pull"].split(" && ")
        assert f" images pull --plain-http {stage(host, A)}" in first
        assert " images import " in second and " tag " not in second
        assert stage(host, A) in script.cleanup

    @pytest.mark.parametrize(
        ("document", "media_type"),
        [
            (MANIFEST, OCI_MANIFEST),
            (INDEX, OCI_INDEX),
            (MANIFEST[:-1] + f', "mediaType": "{DOCKER_MANIFEST}"}}'.encode(), DOCKER_MANIFEST),
        ],
    )
    def test_a_moved_name_gets_type_and_length_of_the_bytes_themselves(
        self, answering: Answering, monkeypatch: pytest.MonkeyPatch, document: bytes, media_type: str
    ) -> None:
        monkeypatch.setattr(content, "checked", checked)
        digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        answering(digest).manifest = document
        named: list[Descriptor] = []
        monkeypatch.setattr(layout, "index_only", lambda given: bytes(named.extend(each[2] for each in given) or 1))
        host = Host([image(REF, B)], answers=here(image(REF, digest)) | {"top": Answer(0, document, "")})
        with contextlib.suppress(errors.FerryError):  # what came does not matter here
            pulled(host, force=True)
        assert Descriptor(media_type, digest, len(document)) in named

    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"{}",
            MANIFEST + b" ",
            MANIFEST[:-1] + f', "mediaType": "{OCI_INDEX}"}}'.encode(),
            INDEX[:-1] + b', "mediaType": "application/json"}',
            INDEX[:-1] + b', "mediaType": [1]}',
        ],
    )
    def test_a_name_stays_where_the_registry_gives_something_else_than_it_names(
        self, answering: Answering, monkeypatch: pytest.MonkeyPatch, document: bytes
    ) -> None:
        monkeypatch.setattr(content, "checked", checked)
        named = document.removesuffix(b" ")
        digest = f"sha256:{hashlib.sha256(named).hexdigest()}"
        answering(digest).manifest = document
        host = Host([image(REF, B)], answers=here(image(REF, digest)))
        with pytest.raises((errors.ContentMissing, errors.ContentCorrupt)):
            pulled(host, force=True)
        assert "pull" not in host.texts

    def test_an_index_that_moves_a_name_keeps_what_is_there_of_other_platforms(self, answering: Answering) -> None:
        answering(B)
        index = image(REF, B, media_type=OCI_INDEX)
        host = Host([image(REF, A)], blobs={B: INDEX}, answers=here(index, top=Answer(0, INDEX, "")))
        pulled(host, force=True)
        step = host.texts["pull"]
        assert "gc.ref.content.rest" in step and "--all-platforms" not in step
        assert step.index("gc.ref.content.rest") < step.index(" import ")

    def test_another_platform_moves_a_name_where_import_can_name_it(self, answering: Answering) -> None:
        answering(B)
        index = image(REF, B, media_type=OCI_INDEX)
        visible = Answer(0, "\n".join((B, CHILD, OTHER, CONFIG)).encode(), "")
        answers = here(index, visible=visible, top=Answer(0, INDEX, ""))
        blobs = {B: INDEX, CHILD: MANIFEST, OTHER: MANIFEST}
        host = Host([image(REF, A)], blobs=blobs, answers=answers)
        pulled(host, force=True, platform="linux/arm64")
        assert "import --platform linux/arm64 --no-unpack" in host.texts["pull"]
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([image(REF, A)], version="1.4.13", answers=answers), force=True, platform="linux/arm64")

    def test_a_failure_then_leaves_the_name_as_it_was(self, answering: Answering) -> None:
        answering(A)
        broken = here(image(REF, B), pull=Answer(1, b"", 'ctr: Get "http://r": unexpected EOF\n'), after=table())
        host = Host([image(REF, B)], answers=broken)
        with pytest.raises(errors.RegistryBrokenOff):
            pulled(host, force=True)
        assert not any(REF in text and "images rm" in text for text in host.texts.values())

    def test_a_name_that_could_be_lost_is_not_moved(self, answering: Answering) -> None:
        answering(B)  # an index, which 1.2 cannot name
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([image(REF, A)], version="1.2.6"), force=True)
        answering(RegistryState.NOT_CHECKED)
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([image(REF, A)]), force=True)

    def test_from_a_registry_that_cannot_be_asked_is_unverified(self, answering: Answering) -> None:
        answering(RegistryState.NOT_CHECKED)
        result = pulled(Host([], answers=here(image(REF, A))))
        assert (result.status, result.verified, result.digest) == (Status.CHANGED, "unverified", A)

    def test_is_an_error_where_kubelet_does_not_see_the_name(self, answering: Answering) -> None:
        answering(A)
        host = Host([], answers=here(image(REF, A)) | {"after": table()}, cri=True)
        with pytest.raises(errors.VerifyFailed, match="CRI"):
            pulled(host)
        assert pulled(Host([], answers=here(image(REF, A, MANAGED)), cri=True)).status is Status.CHANGED

    def test_1_0_knows_no_platforms(self, answering: Answering) -> None:
        answering(A)
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([], version="1.0.3"), platform="linux/arm64")

    def test_does_not_move_a_name_to_an_unknown_manifest(self, answering: Answering) -> None:
        answering(RegistryState.NOT_CHECKED)
        with pytest.raises(errors.MethodUnsupported, match="cannot be moved"):
            pulled(Host([image(REF, B)]), digest=A, force=True)

    def test_names_are_pulled_in_their_full_form(self, answering: Answering) -> None:
        answering(A)
        name = "docker.io/library/busybox:latest"
        assert pulled(Host([], answers=here(image(name, A))), ref="busybox").reference == name

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"ref": [REF], "digest": "sha256:1"},
            {"ref": [f"r/a@{A}"], "digest": B},
            {"ref": [REF], "platform": "linux/amd64", "all_platforms": True},
            {"ref": [REF, "r/b"], "digest": A},
        ],
    )
    def test_options_that_contradict_each_other_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(errors.UsageError):
            pull.parse(**options)
