"""What a host asks of who logs in: one password is answered, nothing else, and never from stdin.

paramiko itself reads stdin in the host's thread, and answers any single question with the password.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import paramiko

_PASSWORD = re.compile(r"passw", re.IGNORECASE)
# One-time passwords, and passwords that are to be changed.
_OTHER = re.compile(r"one.?time|otp|s/key|code|token|\bpin\b|\bnew\b|retype", re.IGNORECASE)


class UnansweredError(paramiko.AuthenticationException):
    """The host asked for what only a person could answer.

    Attributes:
        asked: its words.
    """

    def __init__(self, asked: str) -> None:
        super().__init__("the host asks for more")
        self.asked = asked


class Answers:
    """Answers keyboard-interactive: a question for the password gets it, once.

    Args:
        password: None where there is none.
    """

    def __init__(self, password: str | None) -> None:
        self._password = password

    def __call__(self, title: str, instructions: str, questions: Sequence[tuple[str, bool]]) -> list[str]:
        """paramiko's hook, called in its own thread.

        Raises:
            UnansweredError: nothing is sent then.
        """
        if not questions:
            return []
        if self._password is None or len(questions) > 1 or not _is_for_password(*questions[0]):
            raise UnansweredError("\n".join((title, instructions, *(text for text, _ in questions))))
        answer, self._password = self._password, None
        return [answer]


def _is_for_password(text: str, shown: bool) -> bool:
    return not shown and bool(_PASSWORD.search(text)) and not _OTHER.search(text)
