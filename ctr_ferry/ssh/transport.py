"""paramiko's transport, mended where large transfers over several channels need it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import paramiko
from paramiko.buffered_pipe import PipeTimeout
from paramiko.ssh_exception import BadAuthenticationType, IncompatiblePeer

from ctr_ferry.ssh.bounds import Authentication, Packets, demand_few
from ctr_ferry.ssh.login import Answers

# Never offered: CBC, 3DES, MD5, MACs cut to 96 bits, and what rests on SHA-1's collisions or on 1024 bits. hmac-sha1
# stays, as with OpenSSH: collisions are none of its weaknesses.
_WEAK = re.compile(r"cbc|3des|arcfour|md5|-96|group1-|group14-sha1|exchange-sha1|ssh-dss|^ssh-rsa$")
_ASKED = {  # by our words: what paramiko reads of the host, and its name for what we offer
    "key exchanges": (("kex_algo_list",), "preferred_kex"),
    "host key types": (("server_key_algo_list",), "preferred_keys"),
    "ciphers": (("client_encrypt_algo_list", "server_encrypt_algo_list"), "preferred_ciphers"),
    "MACs": (("client_mac_algo_list", "server_mac_algo_list"), "preferred_macs"),
}
_MOMENT = 0.01  # seconds that a read waits for more than a little


class ReceiveBuffer:
    """What came on a channel, kept in the pieces in which it came.

    paramiko's own copies each byte three times, and moves all that waits at every read (ARCHITECTURE, Transport).

    Attributes:
        low: bytes that a read waits for, a moment, so that not every packet wakes a thread.
    """

    def __init__(self) -> None:
        self.low = 1
        self._cv = threading.Condition()
        self._event: threading.Event | None = None
        self._closed = False
        self._pieces: deque[bytes] = deque()
        self._size = self._wanted = 0

    def feed(self, data: bytes) -> None:
        """Takes what has come."""
        with self._cv:
            self._pieces.append(data)
            self._size += len(data)
            if self._event is not None:
                self._event.set()
            if self._size >= self._wanted:
                self._cv.notify_all()

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """At most so many bytes, as soon as there are some; none at the end.

        Raises:
            PipeTimeout: nothing came in so many seconds.
        """
        with self._cv:
            if self.low > 1:
                self._await(min(self.low, nbytes), _MOMENT)
            if not self._await(1, timeout):
                raise PipeTimeout
            return self._take(nbytes)

    def _await(self, size: int, timeout: float | None) -> bool:
        self._wanted = size
        return self._cv.wait_for(lambda: self._size >= size or self._closed, timeout)

    def _take(self, most: int) -> bytes:
        taken: list[bytes] = []
        while self._pieces and most:
            piece = self._pieces.popleft()
            if len(piece) > most:
                self._pieces.appendleft(piece[most:])
                piece = piece[:most]
            taken.append(piece)
            most -= len(piece)
        self._size -= sum(map(len, taken))
        if self._event is not None and not self._size and not self._closed:
            self._event.clear()
        return b"".join(taken)

    def read_ready(self) -> bool:
        """Whether there is something to read."""
        return self._size > 0

    def empty(self) -> bytes:
        """All that waits."""
        with self._cv:
            return self._take(self._size)

    def set_event(self, event: threading.Event) -> None:
        """An event that is set while there is something to read, or the end."""
        with self._cv:
            self._event = event
            (event.set if self._closed or self._size else event.clear)()

    def close(self) -> None:
        """Nothing more will come."""
        with self._cv:
            self._closed = True
            self._cv.notify_all()
            if self._event is not None:
                self._event.set()

    def __len__(self) -> int:
        return self._size


class _Channel(paramiko.Channel):
    """A session whose messages say whose they are.

    paramiko lets a thread that writes send on a channel that its own thread has just closed in answer to sshd, which
    gives up the whole connection for it ("data packet referred to nonexistent channel", OpenSSH 9.2).
    """

    def _send(self, s: bytes, m: paramiko.Message) -> int:
        m.sender = self  # type: ignore[attr-defined]
        return super()._send(s, m)  # type: ignore[misc,no-any-return]

    def _send_eof(self) -> paramiko.Message | None:
        message: paramiko.Message | None = super()._send_eof()  # type: ignore[misc]
        if message:
            message.sender = self  # type: ignore[attr-defined]
        return message


class NothingInCommonError(paramiko.SSHException):
    """The host offers nothing of what is needed.

    Attributes:
        what: is needed, in words.
        theirs, ours: names of algorithms.
    """

    def __init__(self, what: str, theirs: Sequence[str], ours: Sequence[str]) -> None:
        super().__init__(f"no {what} in common")
        self.what, self.theirs, self.ours = what, ", ".join(theirs), ", ".join(ours)


def _safe(kind: str) -> tuple[str, ...]:
    return tuple(name for name in vars(paramiko.Transport)[f"_preferred_{kind}"] if not _WEAK.search(name))


class Transport(paramiko.Transport):
    """Offers no weak algorithm, reads no stdin, waits for no acknowledgements, and lives through new keys.

    Args:
        known_types: of the host keys that are known: asked for first, since the host sends one key alone.

    paramiko leaves Nagle's algorithm on, which OpenSSH does not: a small message behind another waits until the other
    side acknowledges, and Linux puts that off for 40 ms (ARCHITECTURE, Transport).

    paramiko's own thread answers the end of a channel, and keepalives, with messages that wait until keys are
    negotiated, which that same thread would have to do: 30 s later it gives up the connection (seen with 5.1; new
    keys come every 512 MiB, or as sshd's RekeyLimit says). Here such messages are sent when the keys are there.
    """

    # Measured (ARCHITECTURE, Transport): AES-GCM needs no separate MAC; paramiko lists it last.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        *(name for name in _safe("ciphers") if "-gcm" not in name),
    )
    _preferred_macs = _safe("macs")
    _preferred_kex = _safe("kex")
    _preferred_keys = _safe("keys")
    _preferred_pubkeys = _safe("pubkeys")

    def __init__(self, *args: Any, known_types: Collection[str] = (), **kwargs: Any) -> None:
        self._postponed: deque[paramiko.Message] = deque()
        self._theirs: dict[str, Any] = {}
        super().__init__(*args, **kwargs)
        rsa = {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in known_types else set()
        self._preferred_keys = tuple(sorted(self._preferred_keys, key=lambda name: name not in {*known_types, *rsa}))
        self.packetizer.__class__ = Packets
        self._promptly("TCP_NODELAY")

    def _parse_ext_info(self, msg: paramiko.Message) -> None:
        demand_few(msg.get_int())
        msg.rewind()
        super()._parse_ext_info(msg)  # type: ignore[misc]

    def _really_parse_kex_init(self, m: paramiko.Message, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._theirs = super()._really_parse_kex_init(m, *args, **kwargs)  # type: ignore[misc]
        return self._theirs

    def _parse_kex_init(self, m: paramiko.Message) -> None:
        try:
            super()._parse_kex_init(m)  # type: ignore[misc]
        except IncompatiblePeer as error:
            for what, (lists, ours) in _ASKED.items():
                for theirs in (self._theirs[name] for name in lists):
                    if not set(theirs) & set(offered := getattr(self, ours)):
                        raise NothingInCommonError(what, theirs, offered) from error
            raise

    def auth_password(
        self,
        username: str,
        password: str,
        event: threading.Event | None = None,
        fallback: bool = True,
    ) -> list[str]:
        """A login by password; where the host asks for it by keyboard-interactive, by that.

        Raises:
            UnansweredError: the host asks for something else, or for more.
        """
        try:
            further = super().auth_password(username, password, event, fallback=False)
        except BadAuthenticationType as refused:
            if not fallback or "keyboard-interactive" not in refused.allowed_types:
                raise
            further = self.auth_interactive(username, Answers(password))
        if further and event is None:  # paramiko takes a part of the login for all of it
            self.auth_interactive_dumb(username)
        return []

    def auth_interactive(self, username: str, handler: Any, submethods: str = "") -> list[str]:
        """A login by questions and answers."""
        if not self.is_active() or not self.initial_kex_done:
            raise paramiko.SSHException("No existing session")
        answered = threading.Event()
        self.auth_handler = Authentication(self)
        self.auth_handler.auth_interactive(username, handler, answered, submethods)
        return list(self.auth_handler.wait_for_response(answered))

    def auth_interactive_dumb(self, username: str, handler: Any = None, submethods: str = "") -> list[str]:
        """What paramiko does where a key was not enough and there is no password: here no question is answered."""
        if further := self.auth_interactive(username, handler or Answers(None), submethods):
            raise BadAuthenticationType("the host asks for more", further)
        return []

    def _promptly(self, option: str) -> None:
        """Sets an option of TCP's, where there is such a one, and no gateway in between."""
        if isinstance(self.sock, socket.socket) and hasattr(socket, option):
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), 1)

    def _parse_global_request(self, m: paramiko.Message) -> None:
        super()._parse_global_request(m)  # type: ignore[misc]
        self._promptly("TCP_QUICKACK")  # sshd tells its keys, and holds back what we ask next until that has arrived

    def open_session(
        self, window_size: int | None = None, max_packet_size: int | None = None, timeout: float | None = None
    ) -> paramiko.Channel:
        """A session whose stdout comes into an `ReceiveBuffer`; nothing has come before its command runs."""
        channel = super().open_session(window_size, max_packet_size, timeout)
        channel.in_buffer = ReceiveBuffer()  # type: ignore[assignment]
        channel.__class__ = _Channel
        return channel

    def _send_user_message(self, data: paramiko.Message) -> None:
        if threading.current_thread() is self and not self.clear_to_send.is_set():
            self._postponed.append(data)
        else:
            super()._send_user_message(data)  # type: ignore[misc]

    def _send_message(self, data: paramiko.Message) -> None:
        """Sends nothing of a channel that is closed; it is, before its end is sent, which takes the same lock."""
        sender = getattr(data, "sender", None)
        if sender is None or not sender.closed:
            super()._send_message(data)  # type: ignore[misc]

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        while self._postponed:
            with self.clear_to_send_lock:
                self._send_message(self._postponed.popleft())
