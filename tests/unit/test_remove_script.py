"""The script of `remove` removes names in their order, unless a container began to use one; run with a ctr in sh."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from removing import CONFIG, ONE, TWO

from ctr_ferry.ctr import remove as ctr_remove
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.shell import Answer

MARK = "ferry-0123456789abcdef"


class TestTheScript:
    """Run here, with a ctr that is a few lines of sh."""

    def remove(self, folder: Path, names: Sequence[str], guarded: Sequence[str], containers: str = "") -> Answer:
        ctr = folder / "ctr"
        ctr.write_text(f"""#!/bin/sh
case "$*" in
*"containers ls") printf 'CONTAINER IMAGE RUNTIME\\n{containers}' ;;
*"images rm"*) echo "$*" >>{folder}/removed; case "$*" in *bad*) exit 1 ;; esac ;;
esac
""")
        ctr.chmod(0o755)
        version = Version.parse("1.6.20")
        assert version
        made = ctr_remove.script(
            Ctr((str(ctr),), "/x.sock", Capabilities.of_version(version)), "k8s.io", names, guarded
        )
        done = subprocess.run(["/bin/sh", "-c", made.render(MARK)], capture_output=True, check=False)
        return made.read(MARK, done.stdout, done.stderr)["remove"]

    def test_removes_all_in_their_order_and_waits_with_the_last(self, tmp_path: Path) -> None:
        assert self.remove(tmp_path, [ONE, TWO, CONFIG], []).ok
        assert (tmp_path / "removed").read_text().endswith(f"images rm --sync {ONE} {TWO} {CONFIG}\n")

    def test_goes_on_after_a_failure_and_tells_it(self, tmp_path: Path) -> None:
        names = ["bad", *(f"n{n}" for n in range(700))]
        assert self.remove(tmp_path, names, []).exit == 1
        first, second = (tmp_path / "removed").read_text().splitlines()
        assert ("--sync" in first, "--sync" in second) == (False, True)
        assert second.endswith("n699")

    @pytest.mark.parametrize(("used", "exit"), [(ONE, ctr_remove.TAKEN_UP), (TWO, 0), (f"{ONE}x", 0)])
    def test_stops_if_a_container_began_to_use_an_image_that_was_free(
        self, tmp_path: Path, used: str, exit: int
    ) -> None:
        answer = self.remove(tmp_path, [ONE], [ONE, CONFIG], containers=f"c9 {used} r\\n")
        assert answer.exit == exit
        assert (tmp_path / "removed").exists() == (exit == 0)
        assert ("c9" in answer.stderr) == bool(exit)

    def test_names_are_no_sh(self, tmp_path: Path) -> None:
        evil = "a/$(touch pwned):1"
        assert self.remove(tmp_path, [evil], [evil, "*"], containers="c9 other r\\n").ok
        assert evil in (tmp_path / "removed").read_text()
