"""The program ctr-ferry: where it finds its files, and what it says before this project has loaded."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import fabric.config
import pytest

import ctr_ferry
from ctr_ferry.run.program import Program

ROOT = Path(__file__).parents[2]
HOSTS = "all: {hosts: {%s: {ansible_host: 127.0.0.9}}}"


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    """The folder that the program is started in."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


def ferry(folder: Path, *words: str, name: str = "ctr-ferry", **more: str) -> subprocess.CompletedProcess[str]:
    """Start the program as a shell does, with a home of the test's."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CTR_FERRY", "FABRIC_", "XDG_"))}
    program = folder.parent / name
    if not program.exists():
        program.symlink_to(ROOT / "ctr-ferry")
    environment = {**kept, "HOME": str(home), **more}
    return subprocess.run([program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def hosts(folder: Path, **more: str) -> list[str]:
    """Return the hosts of the inventory that the program finds."""
    done = ferry(folder, "hosts", "--json", **more)
    return [host["host"] for host in json.loads(done.stdout)["commands"][0]["result"]["hosts"]]


def write(file: Path, text: str) -> Path:
    """Write a file, with its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_version_is_ours_and_names_the_libraries(folder: Path) -> None:
    lines = ferry(folder, "--version").stdout.splitlines()
    assert lines[0] == f"ctr-ferry {ctr_ferry.__version__}"
    assert [line.split()[0] for line in lines[1:]] == ["Fabric", "Invoke", "Paramiko"]


def test_a_user_without_a_name_may_name_the_login_user_of_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise OSError("No username set in the environment")  # as from Python 3.13 on

    monkeypatch.setattr(fabric.config, "get_local_user", no_name)
    monkeypatch.setattr("getpass.getuser", no_name)
    program = Program("fab")
    program.create_config()
    assert program.config.user is None


class TestInventory:
    def test_that_of_the_folder_comes_before_that_of_the_user(self, folder: Path) -> None:
        write(folder.parent / "home/.config/ctr-ferry/hosts.yaml", HOSTS % "mine")
        assert hosts(folder) == ["mine"]
        write(folder / "hosts.yaml", HOSTS % "here")
        assert hosts(folder) == ["here"]

    def test_the_environment_names_another(self, folder: Path) -> None:
        write(folder / "hosts.yaml", HOSTS % "here")
        assert hosts(folder, CTR_FERRY_INVENTORY=str(write(folder / "other", HOSTS % "other"))) == ["other"]

    def test_the_users_folder_is_where_the_base_directories_say(self, folder: Path) -> None:
        write(folder / "base/ctr-ferry/hosts.yaml", HOSTS % "based")
        assert hosts(folder, XDG_CONFIG_HOME=str(folder / "base")) == ["based"]

    def test_without_one_a_sentence_names_the_users_own(self, folder: Path) -> None:
        done = ferry(folder, "hosts")
        assert done.returncode == 2
        assert str(folder.parent / "home/.config/ctr-ferry/hosts.yaml") in done.stderr.splitlines()[0]


class TestRecords:
    def test_they_are_in_the_users_folder_for_state(self, folder: Path) -> None:
        state = folder.parent / "home/.local/state/ctr-ferry/runs"
        assert str(state) in ferry(folder, "runs").stdout

    def test_the_base_directory_and_the_environment_move_them(self, folder: Path) -> None:
        assert (
            str(folder / "state/ctr-ferry/runs") in ferry(folder, "runs", XDG_STATE_HOME=str(folder / "state")).stdout
        )
        assert str(folder / "there") in ferry(folder, "runs", FABRIC_FLEET_RUNS=str(folder / "there")).stdout


class TestSettings:
    FILE = "home/.config/ctr-ferry/fabric.yaml"

    def test_those_of_the_user_count_and_their_paths_start_from_their_folder(self, folder: Path) -> None:
        file = write(folder.parent / self.FILE, "fleet: {runs: records, inventory: mine.yaml}")
        write(file.parent / "mine.yaml", HOSTS % "mine")
        assert hosts(folder) == ["mine"]
        assert str(file.parent / "records") in ferry(folder, "runs").stdout

    def test_the_environment_comes_first(self, folder: Path) -> None:
        write(folder.parent / self.FILE, "fleet: {workers: 0}")
        assert "fleet.workers" in ferry(folder, "runs").stderr
        assert ferry(folder, "runs", FABRIC_FLEET_WORKERS="3").returncode == 0

    @pytest.mark.parametrize("text", ["fleet: [", "- fleet", "fleet: 3"])
    def test_a_wrong_file_is_one_sentence(self, folder: Path, text: str) -> None:
        file = write(folder.parent / self.FILE, text)
        done = ferry(folder, "runs")
        assert done.returncode == 2
        assert done.stderr.splitlines()[0].startswith(f"bad-arguments: {file} cannot be read: ")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("-t abc hosts", "-t must be a whole number from 1 on, and is 'abc'"),
        ("-t 0 hosts", "-t must be a whole number from 1 on, and is '0'"),
        ("--connect-timeout=abc hosts", "-t must be a whole number from 1 on, and is 'abc'"),
        ("-T 1.5 hosts", "-T must be a whole number from 1 on, and is '1.5'"),
        ("-D x -l", "-D must be a whole number from 0 on, and is 'x'"),
        ("-F table -l", "-F must be one of flat, nested, json"),
        ("-f missing.yaml hosts", "-f must name a file of settings that exists"),
        ("-f broken.yaml hosts", "cannot be read: "),
    ],
)
def test_what_fabric_shows_as_a_traceback_is_one_sentence(folder: Path, words: str, what: str) -> None:
    write(folder / "broken.yaml", "x: [")
    done = ferry(folder, *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("-t abc hosts", "-t 30 hosts"),
        ("-H a -tabc run abc=1", "-H a -t30 run abc=1"),
        ("--connect-timeout=abc hosts", "--connect-timeout=30 hosts"),
        ("-F table -l", "-F flat -l"),
        ("-H all -t all images", "-H all -t 30 images"),
        ("images -H a -t abc", "images -H a -t 30"),
    ],
)
def test_a_wrong_value_gives_way_to_a_right_one_in_the_line_as_typed(folder: Path, words: str, right: str) -> None:
    assert ferry(folder, *words.split()).stderr.splitlines()[1] == f"  try: such as ctr-ferry {right}"


@pytest.mark.parametrize(
    ("words", "option"), [("-w", "--warn-only"), ("-p", "--pty"), ("-e", "--echo"), ("--hide both", "--hide")]
)
def test_an_option_of_fabric_that_would_change_nothing_is_refused(folder: Path, words: str, option: str) -> None:
    done = ferry(folder, *words.split(), "-H", "a", "images")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"bad-arguments: {option} of Fabric changes nothing here",
        f"  try: leave {option} out: ctr-ferry -H a images",
    ]


class TestCommandBehindDashes:
    @pytest.mark.parametrize(("name", "task"), [("ctr-ferry", []), ("ctr-ferry", ["images"]), ("fab", [])])
    def test_it_is_refused_with_the_command_line_that_checks_host_keys(
        self, folder: Path, name: str, task: list[str]
    ) -> None:
        root = ["-r", str(ROOT)] if name == "fab" else []
        done = ferry(folder, *root, "-H", "a,b", *task, "--", "echo $HOME; id", name=name)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == (
            "bad-arguments: Fabric would run what follows -- without checking any host key, so nothing was run"
        )
        assert done.stderr.splitlines()[1].endswith(f": {name} -H a,b run 'echo $HOME; id'")


class TestName:
    def test_help_and_hints_have_the_name_that_it_was_started_by(self, folder: Path) -> None:
        assert ferry(folder, "--help").stdout.startswith("Usage: ctr-ferry ")
        hint = ferry(folder, "-H", "127.0.0.9", "find").stderr.splitlines()[-1]
        assert hint == "  try: ctr-ferry -H 127.0.0.9 find --match '*/app:1'"

    def test_the_hosts_stand_in_a_hint_under_either_name(self, folder: Path) -> None:
        for name in ("ctr-ferry", "fab"):
            root = ["-r", str(ROOT)] if name == "fab" else []
            runs = str(folder / "runs")
            said = ferry(folder, *root, "-H", "root@127.0.0.9:9", "images", name=name, FABRIC_FLEET_RUNS=runs).stdout
            assert f"; then: {name} -H root@127.0.0.9:9 " in said, said

    def test_hints_in_json_have_it_too(self, folder: Path) -> None:
        document = json.loads(ferry(folder, "-H", "127.0.0.9", "find", "--json").stdout)
        assert document["error"]["hint"].startswith("ctr-ferry -H 127.0.0.9 find ")


@pytest.mark.parametrize("option", ["prompt-for-sudo-password", "prompt-for-login-password", "prompt-for-passphrase"])
def test_a_question_without_a_terminal_is_one_sentence(folder: Path, option: str) -> None:
    (folder.parent / "ctr-ferry").symlink_to(ROOT / "ctr-ferry")
    command = ["setsid", "--wait", folder.parent / "ctr-ferry", f"--{option}", "-H", "127.0.0.9", "images"]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert f"--{option} asks at a terminal, and there is none" in done.stderr
    assert "Traceback" not in done.stderr
