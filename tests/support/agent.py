"""An SSH agent on a socket of its own. A test sets its keys, and what it does not answer."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

_LIST, _SIGN, _FAILURE = 11, 13, 5  # draft-miller-ssh-agent, section 6


@dataclass
class Agent:
    """The agent's settings, and what it was asked.

    Attributes:
        path: of its socket.
        keys: its keys.
        lists, signs: whether it answers a question for its keys, and for a signature.
        refuses: whether it refuses to sign.
        asked: the types of the questions so far.
    """

    path: Path
    keys: Sequence[paramiko.PKey] = ()
    lists: bool = True
    signs: bool = True
    refuses: bool = False
    asked: list[int] = field(default_factory=list)

    def answer(self, question: paramiko.Message) -> bytes:
        """The answer to one question; empty where there is none."""
        kind = question.get_byte()[0]
        self.asked.append(kind)
        answer = paramiko.Message()
        if kind == _LIST and self.lists:
            answer.add_byte(b"\x0c")
            answer.add_int(len(self.keys))
            for key in self.keys:
                answer.add_string(key.asbytes())
                answer.add_string("a comment")
        elif kind == _SIGN and self.refuses:
            answer.add_byte(bytes([_FAILURE]))
        elif kind == _SIGN and self.signs:
            blob, data = question.get_binary(), question.get_binary()
            signing = next(key for key in self.keys if key.asbytes() == blob)
            answer.add_byte(b"\x0e")
            answer.add_string(signing.sign_ssh_data(data).asbytes())
        return answer.asbytes()


@contextmanager
def answering(agent: Agent) -> Iterator[Agent]:
    """Run the agent, for the block."""
    clients: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        with client, client.makefile("rb") as questions:
            while head := questions.read(4):
                if answer := agent.answer(paramiko.Message(questions.read(*struct.unpack(">I", head)))):
                    client.sendall(struct.pack(">I", len(answer)) + answer)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            clients.append(client)
            threading.Thread(target=serve, args=[client], daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent.path))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield agent
        finally:
            listener.shutdown(socket.SHUT_RDWR)
