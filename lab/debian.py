"""Debian packages for the nodes. apt fetches them from the machine's own mirror; they are unpacked, never installed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

SUITES = ("bullseye", "bookworm", "trixie", "sid")
RUNTIME = ("containerd", "runc")
MACHINE = ("openssh-server", "openssh-client", "openssh-sftp-server", "sudo", "busybox-static", "zsh", "tcsh", "fish")
AGAIN = 10.0  # seconds after which the lab tells that it still fetches
Tell: TypeAlias = Callable[[str], object]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """A suite or a package is not available; the text says which and why, in one line."""


@dataclass(frozen=True)
class Trees:
    """The unpacked packages of one suite.

    Attributes:
        suite: the suite's code name.
        runtime: containerd, ctr and runc.
        libraries: the libraries that `runtime` needs; None if the machine's own are new enough.
        machine: sshd, sudo, busybox and login shells; None unless the suite is the machine's own.
    """

    suite: str
    runtime: Path
    libraries: Path | None
    machine: Path | None


def codename() -> str:
    """Return the machine's Debian code name; raise Unavailable unless the machine runs Debian 12 or later."""
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    if release.get("ID") != "debian" or not Path("/lib").is_symlink():
        raise Unavailable("the rehearsal fleet needs Debian 12 or later")
    return str(release.get("VERSION_CODENAME", "sid"))


def fetch(
    suites: Sequence[str], cache: Path, runner: Sequence[str] = (), tell: Tell = lambda _: None
) -> dict[str, Trees | Unavailable]:
    """Fetch and unpack the packages of all suites in parallel, unless `cache` has them.

    Args:
        suites: Debian code names.
        cache: the folder that keeps the unpacked packages.
        runner: the beginning of every command line. The lab uses it to find the processes that it started.
        tell: called with a line of text at each step.

    Returns:
        For each suite its trees, or the reason why it is not available.
    """
    own = codename()
    absent = [suite for suite in suites if not _folder(suite, own, cache).exists()]
    at_work = set(absent)

    def one(suite: str) -> Trees | Unavailable:
        try:
            return _suite(suite, own, cache, runner, tell)
        except Unavailable as why:
            return why
        finally:
            at_work.discard(suite)

    with _reminding(at_work, tell) if absent else contextlib.nullcontext(), ThreadPoolExecutor(len(suites)) as pool:
        return dict(zip(suites, pool.map(one, suites), strict=True))


def busybox(cache: Path) -> Path:
    """Return the static busybox that an earlier `fetch` put into `cache`; raise Unavailable."""
    own = codename()
    program = _folder(own, own, cache) / "machine/usr/bin/busybox"
    if not program.exists():
        raise Unavailable("images need the busybox that `python -m lab up` fetches; run it once")
    return program


@contextlib.contextmanager
def _reminding(at_work: Collection[str], tell: Tell) -> Iterator[None]:
    """Tell every few seconds what is still at work, during the block."""
    done = threading.Event()

    def remind() -> None:
        while not done.wait(AGAIN):
            tell(f"still at work on {', '.join(sorted(at_work))}")

    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def unpacked(packages: Sequence[str], cache: Path, *, whole: bool = False, tell: Tell = lambda _: None) -> Path:
    """Fetch packages of the machine's own suite and unpack them into one tree, unless `cache` has it; return the tree.

    Args:
        packages: the names of the packages. The first name is also the tree's.
        cache: the folder that keeps the tree.
        whole: whether the tree also has the dependencies that the machine lacks.
        tell: called with a line of text at each step.

    Raises:
        Unavailable: a package is not available.
    """
    own = codename()
    final = cache / "tools" / f"{packages[0]}-for-{own}"
    final.parent.mkdir(parents=True, exist_ok=True)
    with final.with_name(final.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may call this at once
        if not final.exists():
            _bring(packages, whole, final, _Apt(own, cache / "apt" / packages[0], (), tell))
    return final


def _bring(packages: Sequence[str], whole: bool, final: Path, apt: _Apt) -> None:
    """Fetch packages and unpack them into `final`. The folder `final` appears only when it is complete."""
    try:
        apt.update()
        needed = [n for n in apt.closure(packages) if n in packages or not _installed(n)] if whole else packages
        archives = apt.download(needed)
        part = final.with_name(final.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        for name in needed:
            _unpack(archives[name], part, ())
        part.rename(final)
    finally:
        shutil.rmtree(apt.folder, ignore_errors=True)


def _folder(suite: str, own: str, cache: Path) -> Path:
    """Return the folder for the trees of one suite."""
    return cache / "trees" / f"{suite}-for-{own}"


def _suite(suite: str, own: str, cache: Path, runner: Sequence[str], tell: Tell) -> Trees:
    """Return the trees of one suite, from the cache or from the mirror; raise Unavailable."""
    final = _folder(suite, own, cache)
    if not final.exists():
        apt = _Apt(suite, cache / "apt" / suite, runner, tell)
        try:
            apt.update()
            _fill(final, suite, own, apt)
        finally:
            shutil.rmtree(apt.folder, ignore_errors=True)

    def tree(name: str) -> Path | None:
        return final / name if (final / name).exists() else None

    return Trees(suite, final / "runtime", tree("libraries"), tree("machine"))


def _fill(final: Path, suite: str, own: str, apt: _Apt) -> None:
    """Unpack all packages needed from `suite` into `final`. The folder `final` appears only when it is complete."""
    wanted = {"runtime": list(RUNTIME)}
    if _newer(suite, own):
        wanted["libraries"] = [name for name in apt.closure(RUNTIME) if name not in RUNTIME]
    if suite == own:
        wanted["machine"] = [n for n in apt.closure(MACHINE) if n in MACHINE or not _installed(n)]
    archives = apt.download([name for names in wanted.values() for name in names])
    apt.tell(f"{suite}: unpacking")
    part = final.with_name(final.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for tree, names in wanted.items():
        for name in names:
            _unpack(archives[name], part / tree, apt.runner)
    part.rename(final)


def _newer(suite: str, own: str) -> bool:
    """Tell whether binaries of `suite` may need newer libraries than a machine of the suite `own` has."""
    order = {name: place for place, name in enumerate(SUITES)}
    return order[suite] > order.get(own, len(SUITES) - 1.5)


def _installed(package: str) -> bool:
    """Tell whether the machine itself has `package`."""
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}\n", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return "installed" in asked.stdout.split()


def _unpack(archive: Path, tree: Path, runner: Sequence[str]) -> None:
    """Unpack one .deb into `tree`, and move everything below usr/, since the nodes have a merged /usr."""
    tree.mkdir(parents=True, exist_ok=True)
    tree.chmod(0o755)
    subprocess.run([*runner, "dpkg", "-x", str(archive), str(tree)], check=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if (tree / name).is_dir():
            target = tree / "usr" / name
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run([*runner, "cp", "-a", "--link", f"{tree / name}/.", str(target)], check=True)
            shutil.rmtree(tree / name)


class _Apt:
    """apt with a state folder of its own: another suite, an empty dpkg status, the machine's mirror and proxy."""

    def __init__(self, suite: str, folder: Path, runner: Sequence[str], tell: Tell) -> None:
        if not KEYRING.exists():
            raise Unavailable(f"{suite}: {KEYRING} is missing (package debian-archive-keyring)")
        self.suite, self.folder, self.runner, self.tell = suite, folder, runner, tell
        for part in ("lists/partial", "cache/archives/partial", "parts", "debs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
        (folder / "apt.conf").write_text(_configuration(folder))

    def update(self) -> None:
        """Read the suite's package lists; raise Unavailable."""
        self.tell(f"{self.suite}: fetching the list of packages")
        self._run("apt-get", "--error-on=any", "update")

    def closure(self, packages: Sequence[str]) -> list[str]:
        """Return the names of `packages` and of all their dependencies."""
        plan = self._run("apt-get", "--simulate", "--no-install-recommends", "install", *packages)
        return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)

    def download(self, packages: Sequence[str]) -> dict[str, Path]:
        """Download `packages` and return the file of each."""
        sizes = re.findall(
            r"^'.*' \S+ (\d+) ", self._run("apt-get", "download", "--print-uris", *packages), re.MULTILINE
        )
        self.tell(f"{self.suite}: fetching {len(packages)} packages, {sum(map(int, sizes)) / 1e6:.0f} MB")
        self._run("apt-get", "download", *packages)
        files = {path.name.split("_")[0]: path for path in (self.folder / "debs").glob("*.deb")}
        return {name: files[name] for name in packages}

    def _run(self, *argv: str) -> str:
        """Run one apt command with the lab's configuration; return its output; raise Unavailable."""
        env = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(
            [*self.runner, *argv],
            cwd=self.folder / "debs",
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            detail = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["no reason given"]
            raise Unavailable(f"{self.suite}: {detail[0].removeprefix('E: ')}")
        return done.stdout


def _configuration(folder: Path) -> str:
    """Return an apt.conf that keeps only the machine's settings for downloads, such as its proxy."""
    own = subprocess.run(
        ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": f"{folder}/parts",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": f"{folder}/parts",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": f"{folder}/parts",
        "Dir::State": str(folder),
        "Dir::State::status": f"{folder}/status",
        "Dir::Cache": f"{folder}/cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        # A mirror may be a frozen copy: apt checks its signature, but not its "valid until".
        "Acquire::Check-Valid-Until": "false",
        "APT::Sandbox::User": "root",
    }
    return own + "".join(f'{key} "{value}";\n' for key, value in settings.items())


def _mirror() -> str:
    """Return the address of the Debian mirror that the machine's own apt uses; raise Unavailable."""
    listed = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True, check=False).stdout
    suites = "|".join((*SUITES, codename(), "unstable", "testing", "stable", "oldstable", "oldoldstable"))
    found = re.search(rf"^'(\S+/)dists/(?:{suites})/InRelease'", listed, re.MULTILINE)
    if not found:
        raise Unavailable("apt knows no Debian mirror on this machine (see /etc/apt/sources.list.d)")
    return str(found[1])
