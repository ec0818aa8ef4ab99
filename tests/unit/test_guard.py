"""The guard runs a script under every login shell and every sh, and leaves no process behind, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fan_outs import until
from login_shells import BOUNDARY, MARKER, NOISE, PATIENCE, SH, SHELLS, Login, ended

from ctr_ferry.errors import GarbledAnswer
from ctr_ferry.shell import Script
from ctr_ferry.ssh import guard


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause that is left behind does not end by itself while a test waits, and a busy host is not ended early."""
    monkeypatch.setattr(guard, "_HEARTBEAT", 2 * PATIENCE)
    set_grace(monkeypatch, PATIENCE)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Login]]:
    """One host for each /bin/sh. A test runs them at the same time, since it waits for seconds."""
    with contextlib.ExitStack() as stack:
        hosts = []
        for name, sh in SH.items():
            (tmp_path / name).mkdir()
            hosts.append(stack.enter_context(contextlib.contextmanager(ended)(Login(["/bin/sh"], tmp_path / name, sh))))
        yield hosts


@pytest.fixture(params=SHELLS.values(), ids=list(SHELLS))
def login(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Login]:
    """A host, once with each login shell."""
    yield from ended(Login(request.param, tmp_path))


@pytest.fixture(params=SH.values(), ids=list(SH))
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Login]:
    """A host, once with each /bin/sh."""
    yield from ended(Login(["/bin/sh"], tmp_path, request.param))


LONG = Script({"one": "sleep 300 & (sleep 300; :) & echo > started; sleep 300"}, cleanup="echo cleaned > cleaned")


def test_a_script_runs_whatever_the_login_shell_prints_first(login: Login) -> None:
    script = Script({"one": "echo out; echo err >&2", "two": "exit_with() { return $1; }; exit_with 3"})
    login.script(script)
    got = login.end(script)
    assert (got["one"].text, got["one"].stderr, got["one"].exit) == ("out\n", "err\n", 0)
    assert got["two"].exit == 3
    assert login.process and login.process.returncode == 0


def test_lines_before_the_start_marker_are_skipped_unread(login: Login) -> None:
    script = Script({"one": "cat; echo out"})
    login.script(script, before=b'a password\nit\'s "$(touch pwned)" \\\n\xff\n' + NOISE.encode() + b"\nends with \\\n")
    assert login.end(script)["one"].text == "out\n"
    assert not (login.home / "pwned").exists()


def test_a_script_with_every_awkward_character_arrives_as_it_is(login: Login) -> None:
    text = "a'b\"c $HOME `x` \\ \t ! % é {} * ~ #"
    quoted = text.replace("'", "'\\''")
    script = Script({"one": f"printf '%s\\n' '{quoted}'"})
    login.script(script)
    assert login.end(script)["one"].text == f"{text}\n"


def test_a_steps_commands_never_read_the_guards_stdin(host: Login) -> None:
    script = Script({"one": "cat; read -r line; echo $?"})
    host.script(script)
    assert host.end(script)["one"].text == "1\n"


def test_nothing_is_left_after_a_normal_end(host: Login) -> None:
    script = Script({"one": ":"}, cleanup="echo cleaned > cleaned; false || return")
    for _ in range(20):  # a process would be left by chance only: by a signal that comes while a shell forks
        process = host.script(script)
        assert process.wait(PATIENCE) == 0
        assert host.is_gone(), host.left
        assert host.file("cleaned").exists()
        host.close()


def start_all(hosts: list[Login], script: Script, limit: int = 3600) -> None:
    assert hosts
    for host in hosts:
        host.script(script, limit=limit)
    assert all(host.file("started").exists() for host in hosts)


def end_all(hosts: list[Login], status: int = guard.BROKEN_OFF, *, cleaned: bool = True) -> None:
    for host in hosts:
        assert host.is_gone(), (host.sh.readlink(), host.left)
        assert host.process and host.process.wait(PATIENCE) == status
        assert (host.home / "cleaned").exists() is cleaned


@pytest.fixture
def seconds(hosts: list[Login], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lets so many seconds pass for the guards that are ending their hosts' processes; no others pass."""
    one = "dd bs=1 count=1 <second >/dev/null 2>&1"
    assert "sleep 1;" in guard._STOP
    monkeypatch.setattr(guard, "_STOP", guard._STOP.replace("sleep 1;", f"{one};"))
    fifos = []
    for host in hosts:
        os.mkfifo(host.home / "second")
        fifos.append(os.open(host.home / "second", os.O_RDWR))

    def let_pass(count: int) -> None:
        for fifo in fifos:
            os.write(fifo, b"." * count)
        until(lambda: not select.select(fifos, [], [], 0)[0])

    yield let_pass
    for fifo in fifos:
        os.close(fifo)


def set_grace(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    text, count = re.subn(r"last=\d+", f"last={seconds}", guard._STOP)
    assert count == 1
    monkeypatch.setattr(guard, "_STOP", text)


def until_asleep(hosts: list[Login]) -> None:
    """Waits for each step's last command: a step writes "started" right before it sleeps."""
    until(lambda: all(any(line.startswith("sleep 300") for line in host.left) for host in hosts))


def test_the_end_of_stdin_ends_all_children_and_cleans_up(hosts: list[Login]) -> None:
    start_all(hosts, LONG)
    until_asleep(hosts)
    for host in hosts:
        host.end_stdin()
    end_all(hosts)


def test_the_deadline_ends_all_while_stdin_is_still_open(hosts: list[Login], monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard's time begins once the step has begun."""
    pause = "sleep %(pause)d 2>/dev/null"
    assert pause in guard._DEADLINE
    monkeypatch.setattr(guard, "_DEADLINE", guard._DEADLINE.replace(pause, f"{{ read -r _ <begin; {pause}; }}"))
    for host in hosts:
        os.mkfifo(host.home / "begin")
    start_all(hosts, LONG, limit=1)
    until_asleep(hosts)
    for host in hosts:
        (host.home / "begin").write_text("\n")
    end_all(hosts)


def test_what_ignores_a_term_is_killed_after_a_grace(hosts: list[Login], monkeypatch: pytest.MonkeyPatch) -> None:
    set_grace(monkeypatch, 1)
    start_all(hosts, Script({"one": "trap : TERM; echo > started; while :; do sleep 300; done"}))
    for host in hosts:
        host.end_stdin()
    end_all(hosts, status=-signal.SIGKILL, cleaned=False)


def test_the_clean_up_runs_although_a_child_missed_the_first_term(hosts: list[Login]) -> None:
    child = "trap 'trap - TERM' TERM; echo > started; while :; do sleep 300; done"
    script = Script({"one": f"/bin/sh -c {shlex.quote(child)}"}, cleanup="sleep 1.2 && echo cleaned > cleaned")
    start_all(hosts, script)
    for host in hosts:
        host.end_stdin()
    end_all(hosts)


def test_a_clean_up_on_a_slow_host_is_neither_disturbed_nor_ended_early(
    hosts: list[Login], seconds: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that TERM ends, as ctr, takes longer than the grace between TERM and KILL."""
    set_grace(monkeypatch, 2)
    slow = "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); open('cleaning', 'w'); open('go').read()"
    command = shlex.join([sys.executable, "-c", slow])
    for host in hosts:
        os.mkfifo(host.home / "go")
    start_all(hosts, Script({"one": "echo > started; sleep 300"}, cleanup=f"{command} && echo cleaned > cleaned"))
    until_asleep(hosts)
    for host in hosts:
        host.end_stdin()
    assert all(host.file("cleaning").exists() for host in hosts)
    seconds(5)
    for host in hosts:
        (host.home / "go").write_text("")
        assert host.process and host.process.wait(PATIENCE) == guard.BROKEN_OFF
    seconds(1)
    end_all(hosts)


def test_a_clean_up_that_hangs_sends_heartbeats_and_is_ended(
    hosts: list[Login], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_grace(monkeypatch, 1)
    monkeypatch.setattr(guard, "_HEARTBEAT", 1)
    monkeypatch.setattr(guard, "_CLEANUP", 2)
    start_all(hosts, Script({"one": "echo > started"}, cleanup="sleep 300"))
    end_all(hosts, status=-signal.SIGKILL, cleaned=False)
    for host in hosts:
        assert host.process and host.process.stderr
        assert host.process.stderr.read().partition(b" end 0\n")[2].count(f"{BOUNDARY} heartbeat\n".encode()) >= 2


def test_a_clean_up_goes_on_without_a_connection(hosts: list[Login], monkeypatch: pytest.MonkeyPatch) -> None:
    set_grace(monkeypatch, 0)
    monkeypatch.setattr(guard, "_HEARTBEAT", 1)
    start_all(hosts, Script({"one": ":"}, cleanup="echo > started; sleep 2.5; echo cleaned > cleaned"))
    for host in hosts:
        assert host.process and host.process.stdout and host.process.stderr
        host.process.stdout.close()
        host.process.stderr.close()
    end_all(hosts, status=0)


# Writes down all that a command can read of other processes and of its own open files.
PRY = """
import fcntl, glob, os, time
with open("seen", "ab") as seen:
    for _ in range(2):
        for file in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
            try:
                seen.write(open(file, "rb").read())
            except OSError:
                pass
        time.sleep(0.6)
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if fd != seen.fileno() and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY:
                os.set_blocking(fd, False)
                seen.write(os.read(fd, 1 << 20))
        except OSError:
            pass
"""


def test_no_command_sees_the_boundary_between_answers(hosts: list[Login], monkeypatch: pytest.MonkeyPatch) -> None:
    """The start marker may be seen: it is on the command line, which every user of the host can read."""
    monkeypatch.setattr(guard, "_HEARTBEAT", 1)
    pry = shlex.join([sys.executable, "-c", PRY])
    scripts = [
        Script({"one": f"echo > started; {pry}"}, cleanup=pry),
        Script({"one": f"printf x | {{ x=$({pry}); }} 4</dev/null"}),
    ]
    for script in scripts:
        for host in hosts:
            host.options = "allexport"  # bash then exports functions, too
            host.script(script)
        for host in hosts:
            assert host.end(script)["one"].ok
            host.close()
            seen = (host.home / "seen").read_bytes()
            assert MARKER.encode() in seen and BOUNDARY.encode() not in seen


def test_a_forged_section_is_output_of_the_step_that_printed_it(host: Login) -> None:
    """A forger can read the start marker on the command line, and knows the form of a boundary."""
    forged = "".join(
        f"\n{word} end 7\n\n{word} begin two\nroot\n\n{word} end 0\n" for word in (MARKER, MARKER + MARKER[6:])
    )
    script = Script(
        {
            "one": f"printf {shlex.quote(forged)} | tee /dev/stderr; exit_with() {{ return 3; }}; exit_with",
            "two": "echo me",
        }
    )
    host.script(script)
    got = host.end(script)
    assert (got["one"].exit, got["one"].text, got["one"].stderr) == (3, forged, forged)
    assert got["two"].text == "me\n"


def test_stdin_that_ends_before_the_start_marker_runs_nothing(host: Login) -> None:
    process = host.start(guard.as_login_user(guard.bootstrap(MARKER, 10)), b"noise\n")
    host.end_stdin()
    assert process.wait(PATIENCE) == 97
    assert host.is_gone()


def test_an_answer_that_was_broken_off_is_garbled(host: Login) -> None:
    host.script(LONG)
    assert host.file("started").exists()
    host.end_stdin()
    with pytest.raises(GarbledAnswer):
        host.end(LONG)


def test_a_script_that_arrives_cut_runs_no_half_command(host: Login) -> None:
    text = guard.render(Script({"one": "echo 0123456789 > whole"}), BOUNDARY, 60)
    first, last = text.index(b"section begin"), text.index(b"section end $?")
    line = guard.as_login_user(guard.bootstrap(MARKER, len(text)))
    for cut in range(first, last, 2):
        host.start(line, f"{MARKER}\n".encode() + text[:cut])
        host.end_stdin()
        assert host.process
        host.process.wait(PATIENCE)
        for stream in (host.process.stdout, host.process.stderr):
            stream.close()  # type: ignore[union-attr]
        file = host.home / "whole"
        assert not file.exists() or file.read_text() == "0123456789\n", text[first:cut]
        file.unlink(missing_ok=True)


SUDO = """echo "$*" >> "$OUT.sudo"
case "$1 $2" in
  "-n true") cat >/dev/null; [ -e "$OUT.allowed" ] || { echo 'sudo: a password is required' >&2; exit 1; }; exit;;
  "-n --") [ -e "$OUT.allowed" ] || { echo 'sudo: a password is required' >&2; exit 1; }; shift 2;;
  "-S -p") printf '%s' "$3" >&2; IFS= read -r password
    [ "$password" = "it's \\"secret\\"" ] || { echo 'sudo: 1 incorrect password attempt' >&2; exit 1; }; shift 4;;
esac
SUDO_USER=ops; export SUDO_USER; exec "$@"
"""
WHO = Script({"one": 'echo "root=${SUDO_USER-no}"; echo "${sudo_said-}"'})


@pytest.mark.parametrize(
    ("uid", "rights", "allowed", "root"),
    [
        (0, False, True, "no\n"),
        (1000, True, True, "no\n"),
        (1000, False, True, "ops\n"),
        (1000, False, False, "no\nsudo: a password is required"),
    ],
    ids=["root itself", "rights are enough", "sudo needed", "sudo refused"],
)
def test_sudo_is_used_only_where_the_login_users_rights_are_not_enough(
    login: Login, uid: int, rights: bool, allowed: bool, root: str
) -> None:
    login.command("sudo", SUDO)
    login.command("id", f"echo {uid}")
    if allowed:
        (login.home / "out.allowed").touch()
    check = f"[ -w {login.home} ]" if rights else "[ -w /nosuch ] || [ -w /nosuch/either ]"
    text = guard.render(WHO, BOUNDARY, 60)
    login.start(guard.as_root_if_needed(guard.bootstrap(MARKER, len(text)), check), f"{MARKER}\n".encode() + text)
    assert login.end(WHO)["one"].text == f"root={root}\n"  # although that sudo reads its stdin, as with log_input
    assert (login.home / "out.sudo").exists() is (uid != 0 and not rights)


def test_sudo_without_a_password_runs_the_script_as_root(login: Login) -> None:
    login.command("sudo", SUDO)
    (login.home / "out.allowed").touch()
    text = guard.render(WHO, BOUNDARY, 60)
    login.start(guard.through_sudo(guard.bootstrap(MARKER, len(text))), f"{MARKER}\n".encode() + text)
    assert login.end(WHO)["one"].text == "root=ops\n\n"


def test_sudos_password_goes_to_its_prompt_and_nowhere_else(login: Login) -> None:
    login.command("sudo", SUDO)
    text = guard.render(WHO, BOUNDARY, 60)
    boot = guard.bootstrap(MARKER, len(text))
    line = guard.through_sudo_with_password(boot, f"{MARKER}-password", f"{MARKER}-ready")
    login.start(line, b'it\'s "secret"\n' + f"{MARKER}\n".encode() + text)
    assert login.process and login.process.stderr
    prompt, stderr = f"{MARKER}-password".encode(), b""
    while prompt not in stderr:
        came = os.read(login.process.stderr.fileno(), 1000)
        assert came, stderr
        stderr += came
    got = login.end(WHO, stderr)
    assert got["one"].text == "root=ops\n\n"
    assert "secret" not in (login.home / "out.sudo").read_text()


def test_a_sudo_that_asks_for_nothing_runs_the_script_although_a_password_was_sent(login: Login) -> None:
    login.command("sudo", SUDO.replace("IFS= read -r password", 'password="it\'s \\"secret\\""'))
    text = guard.render(WHO, BOUNDARY, 60)
    line = guard.through_sudo_with_password(guard.bootstrap(MARKER, len(text)), "prompt", "ready")
    login.start(line, b'it\'s "secret"\n' + f"{MARKER}\n".encode() + text)
    assert login.end(WHO)["one"].text == "root=ops\n\n"


def test_the_command_line_carries_nothing_that_a_login_shell_could_misread() -> None:
    inside = guard.bootstrap(MARKER, 1234)
    assert not set("'\\\n") & set(inside)
    for line in (guard.as_login_user(inside), guard.through_sudo(inside)):
        assert line.count("'") == 2
