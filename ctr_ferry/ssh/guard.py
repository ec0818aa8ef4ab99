"""How a script reaches a host: any login shell, any noise, sudo or not, and never left running.

The command line that sshd sees has no quote, newline or backslash inside its single quotes, so that every login
shell (bash, dash, zsh, csh, fish) reads it alike. The script itself follows on stdin, which then stays open as a
leash: when it ends, because we closed it, died or lost the network, the guard ends the whole process group.

Where a step reads data from stdin, the data's end is the leash: it comes too early, and the step fails. Should the
step hang all the same, the guard's heartbeat finds stderr broken, and ends the group.

Two words keep what others print apart from what is ours. The mark stands on the command line, where every user of the
host can read it; all that it does is to tell the script's beginning from a login's noise. The boundary between answers
is another word, a secret of the script; nobody there can forge a frame.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from ctr_ferry import shell
from ctr_ferry.shell import Script

_GRACE = 10  # seconds between TERM and KILL, for a script's own clean-up
_HEARTBEAT = 15  # seconds; tells us from a host that is gone, and the guard from a connection that is
_CLEANUP = 120  # seconds for a script's clean-up that nothing hurries
BROKEN_OFF = 143  # exit status of a script that the guard ended

# With allexport on, which a start-up file may have set, bash exports functions, and with them the boundary.
_PRIVATE = "set +a"
# TERM again every second: one that comes while a shell forks is missed by the child that the shell then waits for.
# The shell must outlive a broken stderr, on which it says that a child was killed: it still has to clean up.
# `trap` before `sleep`, and `$!` rather than a variable: no moment at which a TERM would orphan the sleep.
# KILL for it: between its fork and its exec a TERM would be swallowed by the trap that it inherited.
_STOP = f"""
stop() {{
  trap : TERM; n=0
  while kill -s TERM 0; [ $n -lt {_GRACE} ] && kill -s 0 $$ 2>/dev/null; do n=$((n+1)); sleep 1; done
  kill -s KILL 0
}}
"""
_LEASH = """
exec 3<&0 </dev/null
( read -r _ <&3; stop ) >/dev/null 2>&1 & leash=$!
"""
_DEADLINE = f"""
( trap 'kill -s KILL $!; exit' TERM; trap '' PIPE; n=0
  while [ $n -lt %(heartbeats)d ]; do
    sleep %(pause)d 2>/dev/null & wait $!; n=$((n+1)); %(heartbeat)s >&2 || break
  done
  stop ) </dev/null >/dev/null 3<&- & deadline=$!
exec 3<&-
trap : PIPE
trap 'exit {BROKEN_OFF}' TERM INT HUP
"""
# A clean-up goes on where the connection is gone: its deadline does not care whether anyone hears the beat.
# USR1 ends it, which the shell itself never traps: a TERM right after the fork would get lost in some shells.
# The first job is there so that `$!` is never somebody else's. The clean-up itself may return.
_CLEANUP_DEADLINE = """trap '' TERM
kill $leash $deadline 2>/dev/null
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
kill $leash $deadline 2>/dev/null
exit 0
"""


def new_start_marker() -> str:
    """For one command line; processes of a run at work are known by its form."""
    return f"ferry-{secrets.token_hex(8)}"


def new_boundary() -> str:
    """For one script."""
    return f"ferry-{secrets.token_hex(16)}"


def bootstrap(start_marker: str, length: int) -> str:
    """The sh text on sshd's command line: skips noise up to the mark, reads ``length`` bytes of script, runs them.

    What sudo did not take of the lines before the mark, its password included, is skipped unread.
    """
    skip = f'until [ "$l" = {start_marker} ]; do IFS= read -r l || exit 97; done'
    return f'{skip}; eval "$(dd ibs=1 count={length} 2>/dev/null)"'


def as_login_user(boot: str) -> str:
    """Runs it as whoever logged in."""
    return f"exec /bin/sh -c '{boot}'"


def as_root_if_needed(boot: str, rights_check: str) -> str:
    """Runs it as the login user where the check succeeds, else through password-less sudo where that works."""
    choose = f'[ "$(id -u)" = 0 ] || {rights_check} || ! sudo -n true 2>/dev/null || exec sudo -n -- /bin/sh -c "$0"'
    return f"exec /bin/sh -c '{choose}; eval \"$0\"' '{boot}'"


def through_sudo(boot: str) -> str:
    """Runs it as root through a sudo that asks for nothing."""
    return f"exec sudo -n -- /bin/sh -c '{boot}'"


def through_sudo_with_password(boot: str, prompt: str, ready: str) -> str:
    """Runs it as root; sudo asks on stderr and reads stdin; once through, ``ready`` appears on stderr."""
    return f"exec sudo -S -p {prompt} -- /bin/sh -c 'echo {ready} >&2; {boot}'"


def render(script: Script, boundary: str, limit: int, *, stdin_is_data: bool = False) -> bytes:
    """The whole text that goes over stdin after the mark.

    Args:
        boundary: draws the frames, the heartbeat's too.
        limit: seconds after which the host itself ends it, should we not be there to do so.
        stdin_is_data: whether a step reads data from stdin, which is no leash then.
    """
    if script.cleanup:
        script = replace(
            script, cleanup=_CLEANUP_DEADLINE % {**_heartbeats(boundary, _CLEANUP), "cleanup": script.cleanup}
        )
    deadline = _DEADLINE % _heartbeats(boundary, limit)
    return (_PRIVATE + _STOP + ("" if stdin_is_data else _LEASH) + deadline + script.render(boundary) + _END).encode()


def _heartbeats(boundary: str, limit: int) -> dict[str, str | int]:
    pause = min(_HEARTBEAT, limit)
    return {"heartbeats": -(-limit // pause), "pause": pause, "heartbeat": shell.boundary_line(boundary, "heartbeat")}
