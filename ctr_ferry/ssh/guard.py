"""The guard: sh text around a script, which gets it past any login shell and never leaves it running.

sshd sees a short command line. It has no quote, newline or backslash inside its single quotes, so every login shell
(bash, dash, zsh, csh, fish) reads it alike. The script follows on stdin. After the script, stdin stays open and empty.
When stdin ends, because the control machine closed it, died or lost the network, the guard ends the process group.

Where a step reads data from stdin, nobody else can wait for the end of stdin. If the connection breaks, the data ends
too early and the step fails. If the step hangs nevertheless, the guard's next heartbeat finds stderr broken, and the
guard ends the process group.

Two random words keep the guard's own lines apart from other output:

- The start marker separates the script from what a login prints or reads first. It is on the command line, where
  every user of the host can read it. It serves no other purpose.
- The boundary separates the answers of the steps. It is part of the script, which nobody else on the host can read.
  So nobody there can forge an answer.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from ctr_ferry import shell
from ctr_ferry.shell import Script

_GRACE = 10  # seconds between TERM and KILL, for a script that does not begin its clean-up
_HEARTBEAT = 15  # seconds between heartbeats: the control machine notices a dead host, the guard a dead connection
_CLEANUP = 120  # seconds for a script's clean-up; a busy host may need most of them
BROKEN_OFF = 143  # exit status of a script that the guard ended

# With allexport on, which a start-up file may have set, bash exports functions, and with them the boundary.
_PRIVATE = "set +a"
# TERM is sent every second: a TERM that comes while a shell forks misses the child that the shell then waits for.
# The shell must survive a broken stderr, where it reports that a child was killed: it still has to clean up.
# `trap` comes before `sleep`, and `$!` is used rather than a variable: at no moment would a TERM orphan the sleep.
# The sleep gets KILL: between its fork and its exec, the trap that it inherited would swallow a TERM.
# USR1 comes from the clean-up: from then on it must not be disturbed, and its own deadline ends it.
_STOP = f"""
stop() {{
  trap : TERM; trap last= USR1; n=0; last={_GRACE}
  while [ -z "$last" ] || kill -s TERM 0; [ $n -lt ${{last:-{_CLEANUP + 2 * _GRACE}}} ] && kill -s 0 $$ 2>/dev/null
  do n=$((n+1)); sleep 1; done
  kill -s KILL 0
}}
"""
_STOP_AT_END_OF_STDIN = """
exec 3<&0 </dev/null
( read -r _ <&3; stop ) >/dev/null 2>&1 & stdin_reader=$!
"""
_DEADLINE = f"""
( trap 'kill -s KILL $!; exit' TERM USR1; trap '' PIPE; n=0
  while [ $n -lt %(heartbeats)d ]; do
    sleep %(pause)d 2>/dev/null & wait $!; n=$((n+1)); %(heartbeat)s >&2 || break
  done
  stop ) </dev/null >/dev/null 3<&- & deadline=$!
exec 3<&-
trap : PIPE
trap 'exit {BROKEN_OFF}' TERM INT HUP
"""
# A clean-up continues without a connection: its deadline ignores whether a heartbeat can be written.
# USR1 ends the deadline, since the shell itself never traps USR1: some shells lose a TERM right after the fork.
# The first background job makes sure that `$!` is no other process. The clean-up's own text may `return`.
_CLEANUP_DEADLINE = """trap '' TERM
for each in TERM USR1; do kill -s $each $stdin_reader $deadline 2>/dev/null; done
( : & trap 'kill -s KILL $! 2>/dev/null; exit' USR1; trap '' PIPE; n=0
  while [ $n -lt %(heartbeats)d ]; do
    sleep %(pause)d 2>/dev/null & wait $!; n=$((n+1)); %(heartbeat)s >&2
  done
  stop ) </dev/null >/dev/null & deadline=$!
tidy() {
%(cleanup)s
}
tidy
kill -s USR1 $deadline 2>/dev/null
"""
_END = """
trap : TERM
kill $stdin_reader $deadline 2>/dev/null
exit 0
"""


def new_start_marker() -> str:
    """A random word for one command line. `doctor` knows processes of a run at work by its form."""
    return f"ferry-{secrets.token_hex(8)}"


def new_boundary() -> str:
    """A random word of 128 bits for one script."""
    return f"ferry-{secrets.token_hex(16)}"


def bootstrap(start_marker: str, length: int) -> str:
    """The sh text on sshd's command line: it skips lines up to the start marker, then runs ``length`` bytes of script.

    If sudo did not read its password, the password is among the skipped lines.
    """
    skip = f'until [ "$l" = {start_marker} ]; do IFS= read -r l || exit 97; done'
    return f'{skip}; eval "$(dd ibs=1 count={length} 2>/dev/null)"'


def as_login_user(boot: str) -> str:
    """The command line that runs the bootstrap as the user who logged in."""
    return f"exec /bin/sh -c '{boot}'"


def as_root_if_needed(boot: str, rights_check: str) -> str:
    """The command line that runs the bootstrap as the login user if a sh test without single quotes succeeds.

    Else it becomes root through a sudo that asks for no password. Without such a sudo, it runs as the login user, and
    the variable ``sudo_said`` has the words of sudo. What decides gets no stdin: a sudo that logs its input would read
    the whole script.
    """
    decide = f'[ "$(id -u)" = 0 ] || {rights_check} || ! sudo_said=$(sudo -n true 2>&1)'
    return f"exec /bin/sh -c '{{ {decide}; }} </dev/null || exec sudo -n -- /bin/sh -c \"$0\"; eval \"$0\"' '{boot}'"


def through_sudo(boot: str) -> str:
    """The command line that runs the bootstrap as root, through a sudo that asks for no password."""
    return f"exec sudo -n -- /bin/sh -c '{boot}'"


def through_sudo_with_password(boot: str, prompt: str, ready: str) -> str:
    """The command line that runs the bootstrap as root, through a sudo that reads a password from stdin.

    On stderr, sudo prints ``prompt`` when it asks, and ``ready`` appears once sudo has accepted the password.
    """
    return f"exec sudo -S -p {prompt} -- /bin/sh -c 'echo {ready} >&2; {boot}'"


def render(script: Script, boundary: str, limit: int, *, stdin_is_data: bool = False) -> bytes:
    """Returns all text that goes over stdin after the start marker: the script inside its guard.

    Args:
        boundary: stands in the lines between answers, and in heartbeats.
        limit: seconds after which the host itself ends the script.
        stdin_is_data: whether a step reads data from stdin. Then the end of stdin ends no process.
    """
    if script.cleanup:
        heartbeats = _heartbeats(boundary, _CLEANUP)
        script = replace(script, cleanup=_CLEANUP_DEADLINE % {**heartbeats, "cleanup": script.cleanup})
    before = _PRIVATE + _STOP + ("stdin_reader=" if stdin_is_data else _STOP_AT_END_OF_STDIN)
    return (before + _DEADLINE % _heartbeats(boundary, limit) + script.render(boundary) + _END).encode()


def _heartbeats(boundary: str, limit: int) -> dict[str, str | int]:
    pause = min(_HEARTBEAT, limit)
    return {
        "heartbeats": -(-limit // pause),
        "pause": pause,
        "heartbeat": shell.boundary_line(boundary, "heartbeat"),
    }
