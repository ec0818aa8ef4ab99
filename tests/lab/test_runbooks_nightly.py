"""`nightly-drift.sh` tells each change once, and is silent on all other nights."""

from __future__ import annotations

from pathlib import Path

import pytest
from ferry import Stage
from registry_scene import RegistryScene
from runbook import (
    NOWHERE,
    Runbook,
    gone_fixture,  # noqa: F401
    image_fixture,  # noqa: F401
    other_fixture,  # noqa: F401
    runbook_fixture,  # noqa: F401
)

from lab.images import BuiltImage


class TestNightlyDrift:
    NODES = "node2,node3,node4"

    @pytest.fixture
    def app(self, stage: Stage, image: BuiltImage, tmp_path: Path) -> str:
        """An image on the hosts, and the only one in the set."""
        stage.seed(image, name := stage.name())
        (tmp_path / "set").write_text(f"# what runs here\n{name}\n")
        return name

    @pytest.fixture
    def words(self) -> tuple[str, ...]:
        """The options of each night."""
        return ("-H", self.NODES, "--set", "set", "--state", "state")

    def test_tells_a_change_once(
        self, stage: Stage, runbook: Runbook, app: str, *, words: tuple[str, ...], other: BuiltImage, image: BuiltImage
    ) -> None:
        first = runbook("nightly-drift", *words)
        assert (first.exit, first.err) == (0, "")
        assert "drift" not in first.out
        second = runbook("nightly-drift", *words)
        assert (second.exit, second.out, second.err) == (0, "", "")

        stage.seed(other, app, nodes=[stage.nodes["node3"]])
        would = runbook("nightly-drift", *words, "--dry-run")
        changed = runbook("nightly-drift", *words)
        assert (would.exit, changed.exit) == (1, 1)
        assert would.out == changed.out
        (line,) = changed.out.splitlines()
        assert line.startswith(f"+ node3: drift: {app} in namespace k8s.io has another digest than expected (")
        assert runbook("nightly-drift", *words) == type(changed)(1, "", "")

        stage.seed(image, app, nodes=[stage.nodes["node3"]])
        mended = runbook("nightly-drift", *words)
        (line,) = mended.out.splitlines()
        assert mended.exit == 0 and line.startswith(f"- node3: drift: {app} ")

    def test_keeps_what_it_knows_of_a_host_that_is_down(
        self, scene: RegistryScene, runbook: Runbook, app: str, other: BuiltImage
    ) -> None:
        scene.stage.seed(other, app, nodes=[scene.nodes["node3"]])
        words = ("-H", "node2,node4,node5,away", "--set", "set", "--state", "state")
        away, there = (
            scene.inventory(ctr_registries={}, hosts={"away": {"ansible_host": address}})
            for address in (NOWHERE, scene.nodes["node3"].address)
        )
        assert "+ away: drift: " in runbook("nightly-drift", *words, inventory=there).out
        down = runbook("nightly-drift", *words, inventory=away)
        assert [line.partition(" (")[0] for line in down.out.splitlines()] == ["+ away: unreachable"]
        assert down.exit == 4
        assert runbook("nightly-drift", *words, inventory=away).out == ""
        assert runbook("nightly-drift", *words, inventory=there).out == "- away: unreachable\n"

    def test_mails_what_has_changed_and_tells_it_again_if_the_mail_was_not_sent(
        self, stage: Stage, runbook: Runbook, app: str, *, words: tuple[str, ...], other: BuiltImage, tmp_path: Path
    ) -> None:
        assert runbook("nightly-drift", *words).exit == 0
        state = (tmp_path / "state").read_text()
        stage.seed(other, app, nodes=[stage.nodes["node3"]])
        mail = tmp_path / "mail"
        mail.write_text("#!/bin/sh\nexit 75\n")
        mail.chmod(0o755)
        failed = runbook("nightly-drift", *words, "--mail", "ops@site.example")
        assert (failed.exit, failed.out) == (1, "") and "the mail was not sent" in failed.err
        assert (tmp_path / "state").read_text() == state

        mail.write_text('#!/bin/sh\n{ echo "$@"; cat; } >>mails\n')
        sent = runbook("nightly-drift", *words, "--mail", "ops@site.example")
        assert (sent.exit, sent.out, sent.err) == (1, "", "")
        subject, line = (tmp_path / "mails").read_text().splitlines()
        assert subject == f"-s nightly-drift.sh: changes on {self.NODES} ops@site.example"
        assert line.startswith(f"+ node3: drift: {app} ")
        runbook("nightly-drift", *words, "--mail", "ops@site.example")
        assert len((tmp_path / "mails").read_text().splitlines()) == 2

    def test_without_a_host_or_a_set_says_why(self, runbook: Runbook, app: str, words: tuple[str, ...]) -> None:
        assert app
        done = runbook("nightly-drift", "-H", "nobody", *words[2:])
        assert (done.exit, done.out) == (2, "") and "nobody" in done.err
        done = runbook("nightly-drift", *words[:2], "--set", "absent", *words[4:])
        assert (done.exit, done.out) == (2, "") and "absent" in done.err
