"""Questions of a host during the login: a question for the password is answered once, all others are refused.

Nothing is ever read from stdin. paramiko by itself would read stdin in the host's thread, and would answer any single
question with the password.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import paramiko

_PASSWORD = re.compile(r"passw|mot de passe", re.IGNORECASE)
# Questions for one-time passwords, and for a new password.
_OTHER = re.compile(r"one.?time|\botp\b|s/key|\bcode\b|\btoken\b|\bpin\b|\bnew\b|retype", re.IGNORECASE)


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
