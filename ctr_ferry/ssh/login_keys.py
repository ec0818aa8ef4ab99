"""The keys of a login: those in files, and those that the SSH agent has."""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentKey, AgentSSH
from paramiko.pkey import PublicBlob

from ctr_ferry.shell import join
from ctr_ferry.ssh.local_path import local_path

_TYPES = (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key)
USUAL_FILES = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_CERTIFICATE = "-cert.pub"
_MAGIC = b"openssh-key-v1\0"  # at the beginning of a file of OpenSSH (PROTOCOL.key)


class UnusableKeyError(Exception):
    """A key cannot be used. Its message says which key and why; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Agent(AgentSSH):
    """The SSH agent, as paramiko sees it, with a limit for each answer: paramiko by itself waits for ever.

    Attributes:
        unanswered: whether a question has no answer, or none yet.
    """

    unanswered = False

    def __init__(self, path: str | None, limit: float) -> None:
        super().__init__()
        if path:
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(limit)
            try:
                opened.connect(path)
            except OSError:  # as with OpenSSH, there is no agent
                opened.close()
                return
            with contextlib.suppress(paramiko.SSHException, UnicodeError):  # it is no agent, or a silent one
                self._connect(opened)  # type: ignore[attr-defined]

    def _send_message(self, msg: bytes) -> tuple[int, paramiko.Message]:
        self.unanswered = True
        try:
            answer: tuple[int, paramiko.Message] = super()._send_message(msg)  # type: ignore[misc]
        except TimeoutError as error:  # paramiko's thread would break on it
            raise paramiko.SSHException("the agent did not answer") from error
        except (paramiko.SSHException, OSError) as error:  # it has ended
            self.unanswered = False
            raise paramiko.SSHException(str(error)) from error
        self.unanswered = False
        return answer

    def close(self) -> None:
        """Closes the connection to the agent."""
        self._close()  # type: ignore[attr-defined]


@dataclass
class Keys:
    """The keys that a login offers, in this order: those of named files, the agent's, those of usual files.

    Args:
        files: files that someone has named. A file that is missing is passed over, as OpenSSH does.
        usual: files that are tried last.
        agent_socket: where the agent listens. It is asked when its first key is needed.
        certificates: files with certificates that do not stand beside their keys (CertificateFile).
        agent_as_named: whether the agent's keys count only where a file has the same key (IdentitiesOnly).
        passphrase: opens encrypted files.
        limit: seconds that the agent has for each answer.

    Attributes:
        unusable: why keys were passed over.
        of_agent: how many keys of the agent were offered so far.
        of_files: whose keys were offered so far.
    """

    files: Sequence[str]
    usual: Sequence[str]
    agent_socket: str | None = None
    certificates: Sequence[Path] = ()
    agent_as_named: bool = False
    passphrase: str | None = None
    limit: float = 10
    unusable: list[UnusableKeyError] = field(default_factory=list, init=False)
    of_agent: int = field(default=0, init=False)
    of_files: list[Path] = field(default_factory=list, init=False)

    @cached_property
    def agent(self) -> Agent:
        """The agent."""
        agent = Agent(self.agent_socket, self.limit)
        if agent.unanswered:
            agent.unanswered = False
            self.unusable.append(self.silent_agent())
        return agent

    @property
    def agent_is_silent(self) -> bool:
        """Whether the agent did not sign in time."""
        return "agent" in vars(self) and self.agent.unanswered

    def silent_agent(self) -> UnusableKeyError:
        """The error for an agent that does not answer."""
        return UnusableKeyError(
            f"the SSH agent at {self.agent_socket} did not answer within {self.limit:.0f} s",
            "see whether it answers: ssh-add -l",
        )

    def close(self) -> None:
        """Closes the connection to the agent."""
        if "agent" in vars(self):
            self.agent.close()
            del self.agent

    def __iter__(self) -> Iterator[paramiko.PKey]:
        seen: set[bytes] = set()
        for key, file in self._all():
            self._certify(key)
            name = key.public_blob.key_blob if key.public_blob else key.asbytes()
            if name in seen:
                continue
            seen.add(name)
            if file:
                self.of_files.append(file)
            else:
                self.of_agent += 1
            yield key

    def _certify(self, key: paramiko.PKey) -> None:
        """Puts a certificate to a key that it is for, if there is one."""
        inner: Any = getattr(key, "inner_key", key)  # of an agent's key
        for file in self.certificates:
            with contextlib.suppress(OSError, UnicodeError, ValueError, paramiko.SSHException):
                certificate = PublicBlob.from_file(str(file))
                if type(inner)(data=certificate.key_blob) == inner:
                    key.public_blob = certificate

    def _all(self) -> Iterator[tuple[paramiko.PKey, Path | None]]:
        """The keys, and the files that they are from."""
        yield from self._in_files(map(local_path, dict.fromkeys(self.files)))
        if not self.agent_as_named:
            yield from ((key, None) for key in self.agent.get_keys())
        yield from self._in_files(file for file in map(local_path, self.usual) if file.exists())

    def _in_files(self, files: Iterator[Path]) -> Iterator[tuple[paramiko.PKey, Path | None]]:
        for file in files:
            try:
                yield load(file, self.passphrase), file
            except UnusableKeyError as error:
                if held := self._of_agent(file):
                    yield held, None
                else:
                    self.unusable.append(error)

    def _of_agent(self, file: Path) -> AgentKey | None:
        public = _public_part(file)
        return next((key for key in self.agent.get_keys() if key.blob == public), None)


def load(file: Path, passphrase: str | None) -> paramiko.PKey:
    """Reads a private key, and the certificate beside it; raises UnusableKeyError where that is impossible."""
    private = file.with_name(file.name.removesuffix(_CERTIFICATE))
    try:
        key = _read(private, passphrase)
    except paramiko.PasswordRequiredException:
        raise UnusableKeyError(
            f"the key {private} is encrypted",
            f"put it into the agent ({join(('ssh-add', str(private)))}), "
            "or give its passphrase with --prompt-for-passphrase",
        ) from None
    except OSError as error:
        raise UnusableKeyError(
            f"the key {private} cannot be read: {error.strerror}",
            "give another key with -i or ansible_ssh_private_key_file, or none to use the agent and ~/.ssh",
        ) from error
    if key is None:
        if passphrase and _is_encrypted(private):
            raise UnusableKeyError(
                f"the key {private} is encrypted, and the passphrase given does not open it",
                f"try it with {join(('ssh-keygen', '-y', '-f', str(private)))}",
            )
        raise UnusableKeyError(
            f"the key {private} is in a form that cannot be read",
            f"rewrite it in OpenSSH's form: {join(('ssh-keygen', '-p', '-f', str(private)))}",
        )
    certificate = private.with_name(private.name + _CERTIFICATE)
    if certificate.is_file():
        try:
            key.load_certificate(str(certificate))
        except (paramiko.SSHException, ValueError) as error:
            raise UnusableKeyError(f"the certificate {certificate} cannot be read: {error}", "renew it") from error
    return key


def _read(file: Path, passphrase: str | None) -> paramiko.PKey | None:
    """A private key; None if paramiko cannot read it."""
    for kind in _TYPES:
        with contextlib.suppress(UnsupportedAlgorithm, ValueError, LookupError, TypeError):
            try:
                return kind.from_private_key_file(str(file), passphrase)
            except paramiko.PasswordRequiredException:
                raise
            except paramiko.SSHException:  # of another type, or no key at all
                continue
    return None


def _is_encrypted(file: Path) -> bool:
    try:
        _read(file, None)
    except paramiko.PasswordRequiredException:
        return True
    return False


def _public_part(file: Path) -> bytes:
    """The public key of a file that cannot be used as a private one: beside it, in it, or in its header; else none."""
    for each in (file.with_name(file.name + ".pub"), file):
        with contextlib.suppress(OSError, UnicodeError, binascii.Error, IndexError):
            text = each.read_text()
            if "PRIVATE KEY" not in text:
                return base64.b64decode(text.split()[1], validate=True)
            data = base64.b64decode("".join(text.split("-----")[2].split()))
            if data.startswith(_MAGIC):
                header = paramiko.Message(data[len(_MAGIC) :])
                for _ in ("cipher", "kdf", "its options"):
                    header.get_binary()
                header.get_int()
                return header.get_binary()
    return b""
