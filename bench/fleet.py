"""`make bench-fleet`: one command on 200 hosts, by ctr-ferry and by what people use today."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.measure import Contender, alternate, report
from lab import debian
from lab.crowd import Crowd
from lab.fleet import Fleet
from lab.layout import PORT

FAB = str(Path(sys.executable).with_name("fab"))
PSSH, CLUSH = ("pssh", "python3-psshlib"), ("clustershell", "python3-clustershell")
TOOLS = ("ansible-core==2.19.14", "pyinfra==3.10.0")
QUESTION = "ctr version"
HOSTS, DEAD, HANGING = 200, (50, 100, 150), (199,)
FEW = 50  # hosts for the contenders that are slow, or that take one host after the other
WIDTH = 32
LIMIT = 10  # seconds for a connection: `timeouts.connect` in fabric.yaml


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--command", default="doctor", help="the ctr-ferry command for all hosts (default doctor)")
    options = parser.parse_args()
    if not shutil.which("ssh"):
        sys.exit("bench-fleet needs the ssh client: apt-get install openssh-client")
    fleet = Fleet()
    fleet.up()
    try:
        pssh, clush = (debian.unpacked(packages, fleet.cache) for packages in (PSSH, CLUSH))
    except debian.Unavailable as why:
        sys.exit(f"bench-fleet needs parallel-ssh and ClusterShell: {why}")
    tools = _tools(fleet.cache / "tools/python")
    with Crowd(fleet, HOSTS, dead=DEAD, hanging=HANGING) as crowd, tempfile.TemporaryDirectory() as folder:
        bench = Bench(crowd, Path(folder), pssh, clush, tools)
        contenders = bench.contenders(shlex.split(options.command))
        alternate(contenders, options.rounds)
    medians = {each.name: each.median for each in contenders}
    ours, all_of_them = f"ours, {options.command}", f"ours, {options.command}, all"
    few = f"ours, run, {FEW}"
    report(
        "fleet",
        contenders,
        {
            "parallel-ssh/ours": medians["parallel-ssh"] / medians[ours],
            "parallel-ssh/ours, run": medians["parallel-ssh"] / medians["ours, run"],
            "clush/ours, run": medians["clush"] / medians["ours, run"],
            "(ours, all, less the hanging one's limit)/parallel-ssh": (medians[all_of_them] - LIMIT)
            / medians["parallel-ssh"],
            "clush/ours": medians[f"clush, {FEW}"] / medians[few],
            "stock fab/ours": medians[f"stock fab, {FEW}"] / medians[few],
            "ansible raw/ours": medians[f"ansible raw, {FEW}"] / medians[few],
            "pyinfra/ours": medians[f"pyinfra, {FEW}"] / medians[few],
        },
        [
            f"{len(crowd.good)} hosts, {WIDTH} at once; all: and {len(DEAD)} dead, {len(HANGING)} that never answers.",
            f"{FEW}: {FEW} good hosts. Stock fab takes one after another. All but {options.command} run {QUESTION!r}.",
            "Hosts are addresses on loopback in front of one real sshd and containerd, on the clients' processors.",
            f"Versions: pssh and ClusterShell of Debian, {', '.join(TOOLS)}.",
            "Ansible has no ControlPersist, so each round connects.",
        ],
    )


def _tools(folder: Path) -> Path:
    """Return the folder with the programs of Ansible and pyinfra, in a virtual environment of the lab's."""
    ready = folder / "-".join(TOOLS)
    if not ready.exists():
        print("bench-fleet: fetching ansible-core and pyinfra. The next run uses the same ones.", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, *TOOLS], check=False).returncode:
            sys.exit(f"bench-fleet needs {' and '.join(TOOLS)}, which pip cannot get here")
        ready.touch()
    return folder / "bin"


class Bench:
    """The command lines of one measurement."""

    def __init__(self, crowd: Crowd, folder: Path, pssh: Path, clush: Path, tools: Path) -> None:
        self.crowd, self.folder, self.pssh, self.clush, self.tools = crowd, folder, pssh, clush, tools
        self.ours = {
            "CTR_FERRY_INVENTORY": str(crowd.inventory),
            "FABRIC_FLEET_RUNS": str(folder / "runs"),
            "HOME": str(folder),
        }

    def contenders(self, command: Sequence[str]) -> list[Contender]:
        """Return all contenders, in the order of a round."""
        good, few = self.crowd.good, self.crowd.good[:FEW]
        named = f"ours, {shlex.join(command)}"
        return [
            self._one("parallel-ssh", self._parallel_ssh(good), good, self._debians(self.pssh)),
            self._one("clush", self._clush(good), good, self._debians(self.clush)),
            self._one(named, self._fab(good, *command), good, self.ours),
            self._one("ours, run", self._fab(good, "run", QUESTION), good, self.ours),
            self._one(f"{named}, all", [FAB, "-H", "all", *command], good, self.ours, status=4),
            self._one(f"ours, run, {FEW}", self._fab(few, "run", QUESTION), few, self.ours),
            self._one(f"parallel-ssh, {FEW}", self._parallel_ssh(few), few, self._debians(self.pssh)),
            self._one(f"clush, {FEW}", self._clush(few), few, self._debians(self.clush)),
            self._one(f"stock fab, {FEW}", self._stock_fab(few), few, {"HOME": str(self.folder)}),
            self._one(f"ansible raw, {FEW}", self._ansible(few), few, self._ansible_environment()),
            self._one(f"pyinfra, {FEW}", self._pyinfra(few), few, {"HOME": str(self.folder)}),
        ]

    def _one(
        self, name: str, argv: Sequence[str], hosts: Sequence[str], env: Mapping[str, str], *, status: int = 0
    ) -> Contender:
        """Return a contender. It must connect to each of its hosts, and end with this exit status."""
        before, after = _counting(self.crowd, name, hosts)
        return Contender(name, ["sh", "-c", f'"$@" 2>/dev/null; [ $? = {status} ]', "sh", *argv], before, after, env)

    def _fab(self, hosts: Sequence[str], *words: str) -> list[str]:
        return [FAB, "-H", ",".join(hosts), *words]

    def _parallel_ssh(self, hosts: Sequence[str]) -> list[str]:
        listed = self.folder / f"{len(hosts)}-hosts"
        listed.write_text("".join(f"{self.crowd.addresses[host]}:{PORT}\n" for host in hosts))
        program = [sys.executable, str(self.pssh / "usr/bin/parallel-ssh")]
        options = f"-F none -i {self.crowd.key} -o UserKnownHostsFile={self.crowd.known_hosts}"
        return [*program, "-h", str(listed), "-p", str(WIDTH), "-l", "root", "-x", options, *QUESTION.split()]

    def _clush(self, hosts: Sequence[str]) -> list[str]:
        program = [sys.executable, str(self.clush / "usr/bin/clush"), "-f", str(WIDTH), "-l", "root"]
        options = f"-F none -p {PORT} -i {self.crowd.key} -o UserKnownHostsFile={self.crowd.known_hosts}"
        return [
            *program,
            "-o",
            options,
            "-w",
            ",".join(self.crowd.addresses[host] for host in hosts),
            *QUESTION.split(),
        ]

    def _debians(self, program: Path) -> dict[str, str]:
        """The environment of a Python program that was unpacked from a Debian package."""
        return {"PYTHONPATH": str(program / "usr/lib/python3/dist-packages"), "HOME": str(self.folder)}

    def _stock_fab(self, hosts: Sequence[str]) -> list[str]:
        named = ",".join(f"root@{self.crowd.addresses[host]}:{PORT}" for host in hosts)
        return ["env", f"--chdir={self.folder}", FAB, "-H", named, "-i", str(self.crowd.key), "--", QUESTION]

    def _ansible(self, hosts: Sequence[str]) -> list[str]:
        words = ["-i", str(self.crowd.inventory), ",".join(hosts), "-f", str(WIDTH), "-m", "raw", "-a", QUESTION]
        return [str(self.tools / "ansible"), *words]

    def _ansible_environment(self) -> dict[str, str]:
        home = str(self.folder / "ansible")
        path = f"{self.tools}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": home, "ANSIBLE_HOME": home, "ANSIBLE_SSH_ARGS": "-F none -o ControlMaster=no"}

    def _pyinfra(self, hosts: Sequence[str]) -> list[str]:
        data = {
            "ssh_user": "root",
            "ssh_port": PORT,
            "ssh_key": str(self.crowd.key),
            "ssh_known_hosts_file": str(self.crowd.known_hosts),
            "ssh_strict_host_key_checking": "yes",
        }
        file = self.folder / "inventory.py"
        file.write_text(f"hosts = {[(self.crowd.addresses[host], data) for host in hosts]!r}\n")
        return [str(self.tools / "pyinfra"), "--parallel", str(WIDTH), "-y", str(file), "exec", "--", QUESTION]


def _counting(crowd: Crowd, name: str, hosts: Sequence[str]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return `before` and `after` of a contender; `after` checks that each host was connected to in between."""
    seen = crowd.connections()

    def before() -> None:
        seen.update(crowd.connections() - seen)

    def after() -> None:
        new = crowd.connections() - seen
        assert all(new[host] >= 1 for host in hosts), f"{name} did not connect to every host"

    return before, after


if __name__ == "__main__":
    main()
