"""A bundle installs as an unprivileged user in an empty network namespace, and the fleet is worked with from there."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from ferry import Stage
from forkserver import CLONE
from tools import environment_with

import ctr_ferry
from lab.fleet import CACHE, Fleet
from lab.images import build

USER = 54321  # has no name
WITHOUT_NETWORK = ["unshare", "--net"]


@dataclass(frozen=True)
class Account:
    """An unprivileged user with a home that nobody else uses, and a Python."""

    top: Path
    python: str

    @property
    def home(self) -> Path:
        """The user's home."""
        return self.top / "a home"

    def command(self, *words: str | Path, alone: bool = False, env: Mapping[str, str] | None = None) -> list[str]:
        """Return the words that run a program as the user, with nothing in the environment but `env`.

        Args:
            alone: whether in a network namespace that has nothing.
        """
        drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        given = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "LOGNAME": "somebody", **(env or {})}
        return [
            *(WITHOUT_NETWORK if alone else []),
            *drop,
            "env",
            "-i",
            *(f"{k}={v}" for k, v in given.items()),
            *map(str, words),
        ]

    def __call__(
        self, *words: str | Path, alone: bool = False, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the user, to its end."""
        argv = self.command(*words, alone=alone, env=env)
        done = subprocess.run(argv, cwd=cwd or self.home, capture_output=True, text=True, timeout=280, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def install(self, bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run install.sh of an unpacked bundle as the user, without a network."""
        words = words if "--python" in words else ("--python", self.python, *words)
        return self("sh", bundle / "install.sh", *words, alone=True)

    def give(self, *files: Path) -> None:
        """Make the user the owner of files, and of what is in folders."""
        subprocess.run(["chown", "-R", f"{USER}:{USER}", *files], check=True)


def _python() -> str:
    """Return the Python of this version, or else another one, that other users may run."""
    found = [sys._base_executable, "/usr/bin/python3"]  # type: ignore[attr-defined]
    for python in found:
        fits = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
        drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env"]  # setpriv itself may more
        if subprocess.run([*drop, python, "-c", fits], capture_output=True, check=False).returncode == 0:
            return str(python)
    pytest.skip("no Python with its venv module that other users may run")


@pytest.fixture(name="account", scope="module")
def account_fixture() -> Iterator[Account]:
    """The user. pytest's own folders are for root alone."""
    if os.geteuid():
        pytest.skip("playing another user needs root")
    with tempfile.TemporaryDirectory(prefix="ctr-ferry-bundle-") as folder:
        Path(folder).chmod(0o755)
        account = Account(Path(folder), _python())
        account.home.mkdir()
        account.give(account.home)
        yield account


@pytest.fixture(name="bundle", scope="module")
def bundle_fixture(account: Account) -> Path:
    """A bundle for this machine and the user's Python, unpacked."""
    asked = [account.python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    made = subprocess.run(
        [sys.executable, "-m", "bundle", "--to", account.top, "--cache", CACHE / "wheels"],
        cwd=CLONE,
        env={**os.environ, "PYTHONS": version, "MACHINES": platform.machine()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (archive,) = account.top.glob("*.tar.gz")
    assert re.search(rf"{archive.name}: [0-9.]+ MiB, \d+ wheels, for Python {version} on", made.stdout)
    subprocess.run(["tar", "xzf", archive], cwd=account.top, check=True)
    return account.top / archive.name.removesuffix(".tar.gz")


@pytest.fixture(name="installed", scope="module")
def installed_fixture(account: Account, bundle: Path) -> Path:
    """The command of an installation in the user's home."""
    done = account.install(bundle)
    assert done.returncode == 0, done.stderr
    assert f'export PATH="{account.home}/.local/bin:$PATH"' in done.stderr
    return account.home / ".local/bin/ctr-ferry"


def copied(bundle: Path, folder: Path, **changes: str) -> Path:
    """Return a copy of a bundle in which files have another text, with the right checksums."""
    shutil.copytree(bundle, folder)
    for path, text in changes.items():
        (folder / path).write_text(text)
    sums = []
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        name = line.split("  ", 1)[1]
        sums.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


def tree(folder: Path) -> set[str]:
    """Return all paths below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class TestBundle:
    def test_the_same_files_give_the_same_bytes(self, bundle: Path, account: Account, tmp_path: Path) -> None:
        (python,) = (bundle / "wheels/pythons").read_text().split()
        words = [sys.executable, "-m", "bundle", "--to", str(tmp_path), "--cache", str(CACHE / "wheels")]
        env = {**os.environ, "PYTHONS": python, "MACHINES": platform.machine()}
        subprocess.run(words, cwd=CLONE, env=env, capture_output=True, check=True)
        (again,) = tmp_path.iterdir()
        assert again.read_bytes() == (account.top / again.name).read_bytes()

    def test_it_has_what_running_needs_and_no_test_lab_or_inventory(self, bundle: Path) -> None:
        there = {path.name for path in bundle.iterdir()}
        assert {"ctr-ferry", "ctr_ferry", "tasks", "fabfile.py", "fabric.yaml", "runbooks", "docs", "LICENSE"} <= there
        assert not {"tests", "lab", "bench", "bundle", "hosts.yaml", "requirements.lock"} & there


class TestInstalled:
    def test_a_listing_needs_no_network(self, account: Account, installed: Path) -> None:
        listed = account(installed, "-l", alone=True)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "  retag " in listed.stdout
        told = account(installed, "--version", alone=True).stdout
        assert told.splitlines()[0] == f"ctr-ferry {ctr_ferry.__version__}"

    def test_images_are_renamed_and_runbooks_run(
        self, account: Account, installed: Path, fleet: Fleet, stage: Stage, tmp_path: Path
    ) -> None:
        node3 = fleet.nodes["node3"]
        work, names = account.top / "work", [stage.name(tag=tag) for tag in ("old", "new", "newest")]
        stage.seed(build(tmp_path / "image", layers=(1000,)), names[0], nodes=[node3])
        work.mkdir()
        for file in ("id_ed25519", "known_hosts"):
            shutil.copy(fleet.state / "ssh" / file, work / file)
        host = {"ansible_host": node3.address, "ansible_port": 2222, "ansible_user": "root"}
        host["ansible_ssh_private_key_file"] = str(work / "id_ed25519")
        host["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={work / 'known_hosts'}"
        (work / "hosts.yaml").write_text(json.dumps({"all": {"hosts": {"node3": host}}}))
        account.give(work)

        done = account(installed, "-H", "node3", "retag", "--src", names[0], "--dst", names[1], cwd=work)
        assert done.returncode == 0, done.stdout + done.stderr
        assert names[1] in stage.records(node3)
        (run,) = (account.home / ".local/state/ctr-ferry/runs").iterdir()
        assert json.loads((run / "run.json").read_text())["versions"]["ctr_ferry"] == ctr_ferry.__version__

        runbook = account.home / ".local/share/ctr-ferry/current/runbooks/rescue-image.sh"
        with_jq = environment_with(["jq"])
        env = {"PATH": f"{with_jq['PATH']}:/usr/bin:/bin"}
        env |= {name: with_jq[name] for name in ("LD_LIBRARY_PATH",) if name in with_jq}
        done = account(runbook, "-H", "node3", "--old", names[0], "--new", names[2], cwd=work, env=env)
        assert done.returncode == 0, done.stderr
        assert names[2] in stage.records(node3)

    def test_a_shell_completes_its_commands_in_any_folder(self, account: Account, installed: Path) -> None:
        typed = "ctr-ferry -H all ret"
        press = f"COMP_LINE='{typed}' COMP_POINT={len(typed)}; _ctr_ferry_completion; echo \"${{COMPREPLY[@]}}\""
        path = {"PATH": f"{installed.parent}:/usr/bin:/bin"}
        done = account(
            "bash", "-c", f'eval "$(ctr-ferry completion bash)"; {press}', env=path, cwd=Path("/"), alone=True
        )
        assert (done.stdout, done.stderr) == ("retag\n", "")

    def test_each_link_of_its_pages_for_people_leads_into_the_bundle(self, bundle: Path) -> None:
        pages = [page for page in [*bundle.glob("*.md"), *bundle.glob("docs/**/*.md")] if page.name != "CHANGELOG.md"]
        assert {"README.md", "README.zh-CN.md", "docs/zh-CN/rescue.md"} <= {str(p.relative_to(bundle)) for p in pages}
        dead = [
            f"{page.relative_to(bundle)}: {link}"
            for page in pages
            for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
            if not (page.parent / link).exists()
        ]
        assert dead == []

    def test_an_upgrade_replaces_and_one_that_fails_changes_nothing(
        self, account: Account, installed: Path, bundle: Path
    ) -> None:
        folder = account.home / ".local/share/ctr-ferry"
        before = tree(account.home)
        newer = {"ctr_ferry/__init__.py": (bundle / "ctr_ferry/__init__.py").read_text().replace('"0.', '"9.')}
        broken = copied(bundle, account.top / "broken", **newer)
        next((broken / "wheels").glob("rich-*.whl")).unlink()
        sums = (broken / "SHA256SUMS").read_text()
        (broken / "SHA256SUMS").write_text(re.sub(r".*  wheels/rich-.*\n", "", sums))
        done = account.install(broken)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("install.sh: ")
        assert "rich" in done.stderr.splitlines()[-1]
        assert tree(account.home) == before
        assert account(installed, "--version").stdout.startswith("ctr-ferry 0.")

        done = account.install(copied(bundle, account.top / "newer", **newer))
        assert done.returncode == 0, done.stderr
        assert account(installed, "--version").stdout.startswith("ctr-ferry 9.")
        assert [path.name[:2] for path in folder.iterdir() if path.is_dir() and not path.is_symlink()] == ["9."]

    def test_an_uninstall_leaves_what_is_the_users_alone(self, account: Account, installed: Path) -> None:
        assert installed.exists()
        mine = account.home / ".config/ctr-ferry/hosts.yaml"
        mine.parent.mkdir(parents=True)
        mine.write_text("all: {}\n")
        done = account(account.home / ".local/share/ctr-ferry/current/install.sh", "--uninstall")
        assert done.returncode == 0, done.stderr
        assert "records stay" in done.stderr
        assert mine.exists()
        left = {path.parts[:2] for path in map(Path, tree(account.home))}
        assert left - {(".local",), (".config",)} <= {(".local", "state"), (".config", "ctr-ferry")}

    def test_there_is_nothing_to_remove(self, account: Account, bundle: Path) -> None:
        done = account("sh", bundle / "install.sh", "--uninstall", "--prefix", account.home / "nowhere")
        assert done.returncode == 2
        assert "is not installed in" in done.stderr


class TestRefusals:
    """Each is one sentence, and leaves nothing."""

    def refused(self, account: Account, bundle: Path, *words: str, status: int = 2) -> str:
        before = tree(account.home)
        done = account.install(bundle, *words)
        (sentence,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (status, "")
        assert tree(account.home) == before
        return sentence

    def fake(self, account: Account, answer: str) -> str:
        """Return a program that answers as a Python does that does not fit, and has no venv."""
        file = account.top / "python"
        file.write_text(f"#!/bin/sh\ncase $2 in -s) echo {shlex.quote(answer)} ;; *) exit 1 ;; esac\n")
        file.chmod(0o755)
        return str(file)

    @pytest.mark.parametrize(
        ("answer", "sentence"),
        [
            ("3.9 CPython glibc", "needs Python 3.11 or later, and there is only"),
            ("3.99 CPython glibc", "make one for it with PYTHONS=3.99 make bundle"),
            ("3.99 PyPy glibc", "is for CPython with glibc"),
            ("3.99 CPython another-libc", "is for CPython with glibc"),
            ("{here} CPython glibc", "has no venv module"),
        ],
    )
    def test_a_python_that_does_not_fit(self, account: Account, bundle: Path, answer: str, sentence: str) -> None:
        here = (bundle / "wheels/pythons").read_text().strip()
        python = self.fake(account, answer.format(here=here))
        assert sentence in self.refused(account, bundle, "--python", python)

    def test_no_python(self, account: Account, bundle: Path) -> None:
        assert "needs Python 3.11 or later" in self.refused(account, bundle, "--python", "no-such-python")

    def test_another_machine(self, account: Account, bundle: Path) -> None:
        other = copied(bundle, account.top / "other", **{"wheels/machines": "s390x\n"})
        assert f"for s390x, and this machine is {platform.machine()}" in self.refused(account, other)

    def test_a_damaged_bundle(self, account: Account, bundle: Path) -> None:
        damaged = copied(bundle, account.top / "damaged")
        (damaged / "tasks/retag.py").write_text("")
        assert "damaged, at tasks/retag.py" in self.refused(account, damaged, status=1)

    def test_a_prefix_that_cannot_be_written(self, account: Account, bundle: Path) -> None:
        sentence = self.refused(account, bundle, "--prefix", "/proc/sys", status=1)
        assert "cannot be made" in sentence
        (account.top / "roots/bin").mkdir(parents=True)
        (account.top / "roots/share/ctr-ferry").mkdir(parents=True)
        (account.top / "roots/share/ctr-ferry/.made").touch()
        assert "may not write" in self.refused(account, bundle, "--prefix", str(account.top / "roots"), status=1)

    def test_no_space(self, account: Account, bundle: Path) -> None:
        small = account.top / "small"
        small.mkdir()
        words = account.command("sh", bundle / "install.sh", "--python", account.python, "--prefix", small)
        script = f"mount -t tmpfs -o size=4m,mode=777 none {small} && exec {shlex.join(words)}"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert re.fullmatch(r"install.sh: there are [34] MiB free at .*, and installing needs \d+ MiB\n", done.stderr)

    def test_a_command_of_somebody_else(self, account: Account, bundle: Path) -> None:
        other = account.home / "taken/bin/ctr-ferry"
        other.parent.mkdir(parents=True)
        other.touch()
        assert "is another program" in self.refused(account, bundle, "--prefix", str(account.home / "taken"))
        shutil.rmtree(account.home / "taken")

    def test_a_wrong_option(self, account: Account, bundle: Path) -> None:
        assert "there is no option --bogus" in self.refused(account, bundle, "--bogus")
