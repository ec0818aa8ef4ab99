"""A login: keys are offered one after another, and questions of the host are answered with the password, once.

Nothing is ever read from stdin. paramiko by itself would read stdin in the host's thread, would answer any single
question with the password, and would go on with further keys after the host has closed the connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import paramiko

from ctr_ferry.errors import ConnectTimeout, LoginRefused
from ctr_ferry.shell import join
from ctr_ferry.ssh.login_keys import Keys
from ctr_ferry.text import tail

_PASSWORD = re.compile(r"passw|mot de passe", re.IGNORECASE)
# Questions for one-time passwords, and for a new password.
_OTHER = re.compile(r"one.?time|\botp\b|s/key|\bcode\b|\btoken\b|\bpin\b|\bnew\b|retype", re.IGNORECASE)
_BY_PASSWORD = {"password", "keyboard-interactive"}  # methods that a password may answer
_TOO_MANY = re.compile("too many|no more auth", re.IGNORECASE)  # sshd's words, and those of paramiko's server
_TIME_IS_UP = "Authentication timeout."  # paramiko's words


class UnansweredError(paramiko.AuthenticationException):
    """The host asked a question that only a person can answer. Its message is the host's words."""


class Answers:
    """Answers the first question for a password, if there is a password (method keyboard-interactive)."""

    def __init__(self, password: str | None) -> None:
        self._password = password

    def __call__(self, title: str, instructions: str, questions: Sequence[tuple[str, bool]]) -> list[str]:
        """paramiko's hook, called in its thread. If it raises UnansweredError, nothing is sent."""
        if not questions:
            return []
        if self._password is None or len(questions) > 1 or not _is_for_password(*questions[0]):
            raise UnansweredError("\n".join((title, instructions, *(text for text, _ in questions))))
        answer, self._password = self._password, None
        return [answer]


def _is_for_password(text: str, shown: bool) -> bool:
    return not shown and bool(_PASSWORD.search(text)) and not _OTHER.search(text)


@dataclass
class Login:
    """One login, as paramiko's ``auth_strategy``.

    Args:
        where: the login as ``user@host:port``, for messages.
        limit: seconds for each step of the login.
    """

    where: str
    user: str
    keys: Keys
    password: str | None
    limit: int

    def authenticate(self, transport: Any) -> None:
        """paramiko's hook: logs in on a connection whose host key is trusted.

        Raises:
            LoginRefused: or paramiko's AuthenticationException for what the host said last.
            ConnectTimeout: the host did not answer in time.
        """
        with closing(self.keys):
            try:
                self._authenticate(transport)
            except (paramiko.SSHException, OSError, EOFError) as error:
                if self.keys.agent_is_silent:
                    silent = self.keys.silent_agent()
                    raise LoginRefused(f"no login at {self.where}: {silent}", hint=silent.hint) from error
                if str(error) == _TIME_IS_UP:
                    raise too_slow(f"the login at {self.where}", self.limit) from error
                if transport.farewell or (not transport.is_active() and _ended(error)):
                    raise self._closed(transport.farewell or str(error)) from error
                raise

    def _authenticate(self, transport: Any) -> None:
        further, refused = self._offer_keys(transport)
        if further == set():
            return
        if self.password is not None:
            transport.auth_password(self.user, self.password)
        elif further and further & _BY_PASSWORD:
            transport.auth_interactive_dumb(self.user)
        elif further:
            raise UnansweredError("one more key")
        else:
            raise self._refused(refused)

    def _offer_keys(self, transport: Any) -> tuple[set[str] | None, Exception | None]:
        """Offers the keys until one is accepted.

        Returns:
            The methods that the host asks for further (none after a whole login); None if it accepted no key. And how
            it refused the last key.
        """
        further, refused = None, None
        for key in self.keys:
            try:
                further = set(transport.auth_publickey(self.user, key))
            except paramiko.BadAuthenticationType as error:  # no other key will do, either
                return further, error
            except paramiko.AuthenticationException as error:
                if str(error) == _TIME_IS_UP or self.keys.agent_is_silent or not transport.is_active():
                    raise
                refused = error
            else:
                if not further or further & _BY_PASSWORD:
                    break
        return further, refused

    def _refused(self, refused: Exception | None) -> LoginRefused:
        """The error where the host accepted no key, and there is no password."""
        methods = set(getattr(refused, "allowed_types", ()))
        said = f"it takes {', '.join(sorted(methods))}" if methods else str(refused or "there is no key to offer")
        if self.keys.unusable:
            first, *others = self.keys.unusable
            what, hint, said = f"no login at {self.where}: {first}", first.hint, "\n".join(map(str, others))
        else:
            what, hint = f"{self.where} refuses the login", f"check user and key: {ssh_there(self.where)}"
            if methods & _BY_PASSWORD:
                hint = "give a password with --prompt-for-login-password"
        return LoginRefused(what, detail=tail(f"{said}\n{self._tried()}"), hint=hint)

    def _closed(self, said: str) -> LoginRefused:
        """The error where the host closed the connection."""
        if not _TOO_MANY.search(said):
            what = f"{self.where} closed the connection during the login"
            return LoginRefused(what, detail=tail(said), hint="read the log of sshd there")
        return LoginRefused(
            f"{self.where} refuses the login: too many authentication failures: {self._tried()}",
            detail=tail(said),
            hint="name the right key with -i, or in ~/.ssh/config, with IdentityFile and IdentitiesOnly yes",
        )

    def _tried(self) -> str:
        """What was offered, in words; empty where that is nothing."""
        agent, files = self.keys.of_agent, self.keys.of_files
        offered = [f"{agent} key{'s' * (agent != 1)} of the agent"] * bool(agent) + [str(file) for file in files]
        return f"{', '.join(offered)} {'was' if agent + len(files) == 1 else 'were'} tried" if offered else ""


def _ended(error: Exception) -> bool:
    """Whether an error tells that the connection ended."""
    return isinstance(error, paramiko.AuthenticationException | OSError | EOFError) and not isinstance(
        error, UnansweredError
    )


def ssh_there(where: str) -> str:
    """The command line that shows how ssh itself logs in at ``user@host:port``."""
    login, _, port = where.rpartition(":")
    return join(("ssh", "-v", "-p", port, "--", login) if login.startswith("-") else ("ssh", "-v", "-p", port, login))


def too_slow(what: str, limit: int) -> ConnectTimeout:
    """The error for a host that answers, but not within the limit for connecting."""
    return ConnectTimeout(
        f"{what} took longer than {limit} s",
        hint=f"raise it: -t {3 * limit}, or timeouts.connect: {3 * limit} in fabric.yaml",
    )
