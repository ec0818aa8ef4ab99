"""paramiko's transport with safe algorithms only, and without its faults in large transfers and in logins."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import paramiko
from paramiko import common
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout
from paramiko.ssh_exception import BadAuthenticationType, IncompatiblePeer

from ctr_ferry.ssh.bounds import Authentication, Packets, demand_few
from ctr_ferry.ssh.login import Answers
from ctr_ferry.ssh.watchdog import Watched

# Never offered: CBC, 3DES, MD5, MACs cut to 96 bits, signatures by SHA-1, and groups of 1024 bits. hmac-sha1 stays, as
# with OpenSSH: collisions of SHA-1 do not weaken it.
_WEAK = re.compile(r"cbc|3des|arcfour|md5|-96|group1-|group14-sha1|exchange-sha1|ssh-dss|^ssh-rsa$")
_OFFERS = {  # kind of algorithm: paramiko's names for the lists of the host, and for our list
    "key exchanges": (("kex_algo_list",), "preferred_kex"),
    "host key types": (("server_key_algo_list",), "preferred_keys"),
    "ciphers": (("client_encrypt_algo_list", "server_encrypt_algo_list"), "preferred_ciphers"),
    "MACs": (("client_mac_algo_list", "server_mac_algo_list"), "preferred_macs"),
}
_KEEPALIVE = 15  # seconds without a byte to the host after which it is asked for an answer
_MOMENT = 0.01  # seconds that a read waits for `ReceiveBuffer.low` bytes
_TAKEN = "Unable to open channel."  # paramiko's words where another thread got the reason of this refusal
_SMALL = 1 << 12  # bytes; smaller pieces are joined, since each takes more memory than its bytes


class ReceiveBuffer(BufferedPipe):  # type: ignore[type-arg]  # only its stub has a parameter
    """The bytes that came on a channel and were not read yet, in the pieces that came; small ones are joined.

    paramiko's own BufferedPipe copies each byte three times, and moves all unread bytes at every read
    (docs/performance.md). Its events and its end stay as they are.

    Attributes:
        low: bytes that a read waits for, for a moment, so that not every packet wakes the reader.
    """

    _buffer: deque[bytes]  # no piece is empty
    _cv: threading.Condition
    _event: threading.Event | None
    _closed: bool

    def __init__(self) -> None:
        super().__init__()
        self.low = 1
        self._buffer = deque()
        self._size = self._wanted = 0

    def feed(self, data: bytes) -> None:
        """Adds bytes that have come."""
        if not data:
            return
        with self._cv:
            if self._buffer and len(self._buffer[-1]) + len(data) <= _SMALL:
                self._buffer[-1] += data
            else:
                self._buffer.append(data)
            self._size += len(data)
            if self._event is not None:
                self._event.set()
            if self._size >= self._wanted:
                self._cv.notify_all()

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """Waits for at most ``timeout`` seconds, and removes one byte to ``nbytes`` bytes; none at the end.

        Raises:
            PipeTimeout: no byte came in time.
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
        while self._buffer and most:
            piece = self._buffer.popleft()
            if len(piece) > most:
                self._buffer.appendleft(piece[most:])
                piece = piece[:most]
            taken.append(piece)
            most -= len(piece)
        self._size -= sum(map(len, taken))
        if self._event is not None and not self._size and not self._closed:
            self._event.clear()
        return b"".join(taken)

    def empty(self) -> bytes:
        """Removes and returns all bytes."""
        with self._cv:
            return self._take(self._size)

    def __len__(self) -> int:
        return self._size


class SessionRefusedError(paramiko.SSHException):
    """sshd lets no further session run on the connection."""


class _Channel(paramiko.Channel):
    """A session whose messages name their sender, so that `Transport` can drop those of a closed channel.

    By itself paramiko may send data on a channel that its own thread has just closed in answer to sshd. sshd then
    closes the whole connection ("data packet referred to nonexistent channel", OpenSSH 9.2).
    """

    def _send(self, s: bytes, m: paramiko.Message) -> int:
        m.sender = self  # type: ignore[attr-defined]
        return super()._send(s, m)  # type: ignore[misc,no-any-return]

    def _send_eof(self) -> paramiko.Message | None:
        message: paramiko.Message | None = super()._send_eof()  # type: ignore[misc]
        if message:
            message.sender = self  # type: ignore[attr-defined]
        return message


def _within_window(feed: Callable[[Any, paramiko.Message], None]) -> Callable[[Any, paramiko.Message], None]:
    """A handler of a channel's packets that cuts off a host that ignores its window. paramiko takes all that comes."""

    def fed(channel: Any, m: paramiko.Message) -> None:
        feed(channel, m)
        unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if unread > channel.in_window_size + channel.in_max_packet_size:
            fault = f"sent more than the {channel.in_window_size} bytes that it may send unread, and was cut off"
            channel.transport.fault = fault
            raise paramiko.SSHException(f"the host {fault}")

    return fed


def _safe(kind: str) -> tuple[str, ...]:
    return tuple(name for name in vars(paramiko.Transport)[f"_preferred_{kind}"] if not _WEAK.search(name))


class Transport(paramiko.Transport):
    """A transport that differs from paramiko's in these points:

    - It offers no weak algorithm, and the fastest cipher first.
    - It asks for the types of known host keys first: a host sends only one key.
    - It never reads stdin during a login, and never takes a part of a login for the whole login.
    - It turns off Nagle's algorithm, as OpenSSH does. With it, a small message after another one waits for an
      acknowledgement, which Linux delays by 40 ms (docs/performance.md).
    - It gives up a host that has gone dark (`watch`).
    - It survives new keys in the middle of a transfer. paramiko's own thread answers the end of a channel, and
      keepalives, with messages that wait for the new keys. But that same thread would have to negotiate the keys, so
      30 s later the connection is closed (seen with paramiko 5.1). New keys come every 512 MiB, or as sshd's RekeyLimit
      says. Here such messages are postponed until the keys have come.

    Args:
        known_types: types of the host keys that known_hosts has.
        certified: whether known_hosts has an authority for the host. Then the host is asked for a certificate.

    Attributes:
        fault: what the host did wrong, so that the connection was closed; else empty.
        farewell: what the host said when it closed the connection.
        open_failure: why the host did not open the last channel that failed. paramiko gives it to its log only.
    """

    _channel_handler_table = {  # noqa: RUF012
        **vars(paramiko.Transport)["_channel_handler_table"],
        common.MSG_CHANNEL_DATA: _within_window(vars(paramiko.Channel)["_feed"]),
        common.MSG_CHANNEL_EXTENDED_DATA: _within_window(vars(paramiko.Channel)["_feed_extended"]),
    }
    fault = farewell = open_failure = ""
    # AES-GCM is the fastest, since it needs no separate MAC (docs/performance.md). paramiko lists it last.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        *(name for name in _safe("ciphers") if "-gcm" not in name),
    )
    _preferred_macs = _safe("macs")
    _preferred_kex = _safe("kex")
    _preferred_keys = _safe("keys")
    _preferred_pubkeys = _safe("pubkeys")

    def __init__(
        self, sock: Any, *args: Any, known_types: Collection[str] = (), certified: bool = False, **kwargs: Any
    ) -> None:
        self._certified = certified
        self._postponed: deque[paramiko.Message] = deque()
        self._theirs: dict[str, Any] = {}
        self._watched = Watched(sock, self._give_up)
        super().__init__(cast(Any, self._watched), *args, **kwargs)
        rsa = {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in known_types else set()
        self._preferred_keys = tuple(sorted(self._preferred_keys, key=lambda name: name not in {*known_types, *rsa}))
        self.packetizer.__class__ = Packets
        self._set_tcp_option("TCP_NODELAY")

    @property
    def preferred_keys(self) -> Sequence[str]:
        """paramiko's hook: the types of host keys, the first one first. Certificates have types of their own."""
        names: Sequence[str] = super().preferred_keys
        return sorted(names, key=lambda name: ("-cert-" in name) != self._certified)

    def _parse_ext_info(self, msg: paramiko.Message) -> None:
        demand_few(msg.get_int())
        msg.rewind()
        super()._parse_ext_info(msg)  # type: ignore[misc]

    def _parse_channel_open_failure(self, m: paramiko.Message) -> None:
        for _ in ("channel", "code"):
            m.get_int()
        self.open_failure = m.get_text()
        m.rewind()
        super()._parse_channel_open_failure(m)  # type: ignore[misc]

    def _really_parse_kex_init(self, m: paramiko.Message, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._theirs = super()._really_parse_kex_init(m, *args, **kwargs)  # type: ignore[misc]
        return self._theirs

    def _parse_kex_init(self, m: paramiko.Message) -> None:
        """Says what the host and this machine do not have in common: the kind of algorithm, its names, and ours."""
        try:
            super()._parse_kex_init(m)  # type: ignore[misc]
        except IncompatiblePeer as error:
            for what, (lists, ours) in _OFFERS.items():
                for theirs in (self._theirs[name] for name in lists):
                    if not set(theirs) & set(offered := getattr(self, ours)):
                        raise IncompatiblePeer(what, ", ".join(theirs), ", ".join(offered)) from error
            raise

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.farewell = m.get_binary().decode(errors="replace")

    def auth_publickey(self, username: str, key: paramiko.PKey, event: threading.Event | None = None) -> list[str]:
        """Logs in by a key; returns the methods that the host asks for further."""
        answered = event or threading.Event()
        login = self._begin_login()
        login.auth_publickey(username, key, answered)
        return list(login.wait_for_response(answered))

    def auth_password(
        self,
        username: str,
        password: str,
        event: threading.Event | None = None,
        fallback: bool = True,
    ) -> list[str]:
        """Logs in by password, or by keyboard-interactive if the host asks for the password in that way.

        Where the host asks for something else, or for more than the password, UnansweredError is raised.
        """
        try:
            further = super().auth_password(username, password, event, fallback=False)
        except BadAuthenticationType as refused:
            if not fallback or "keyboard-interactive" not in refused.allowed_types:
                raise
            further = self.auth_interactive(username, Answers(password))
        if further and event is None:  # paramiko by itself would take this for a whole login
            self.auth_interactive_dumb(username)
        return []

    def auth_interactive(self, username: str, handler: Any, submethods: str = "") -> list[str]:
        """Logs in by questions and answers; returns the methods that the host asks for further."""
        answered = threading.Event()
        login = self._begin_login()
        login.auth_interactive(username, handler, answered, submethods)
        return list(login.wait_for_response(answered))

    def _begin_login(self) -> Authentication:
        if not self.is_active() or not self.initial_kex_done:
            raise paramiko.SSHException("No existing session")
        self.auth_handler = login = Authentication(self)
        return login

    def auth_interactive_dumb(self, username: str, handler: Any = None, submethods: str = "") -> list[str]:
        """paramiko's way to log in if a key was not enough and there is no password. Here no question is answered."""
        if further := self.auth_interactive(username, handler or Answers(None), submethods):
            raise BadAuthenticationType("the host asks for more", further)
        return []

    def watch(self, patience: float) -> None:
        """From now on, closes the connection if the host takes or sends no byte for so many seconds.

        It is asked for an answer now and then. With keepalives of paramiko's own, it need not answer.
        """
        self._set_tcp_option("TCP_USER_TIMEOUT", int(patience * 1000))
        self._watched.watch(patience)
        self.packetizer.set_keepalive(min(_KEEPALIVE, patience / 4), self._ask_for_life)

    def _ask_for_life(self) -> None:
        m = paramiko.Message()
        m.add_byte(common.cMSG_GLOBAL_REQUEST)
        m.add_string("keepalive@openssh.com")
        m.add_boolean(True)
        self._send_user_message(m)

    def _give_up(self, fault: str) -> None:
        self.fault = fault
        self.packetizer.close()

    def _set_tcp_option(self, option: str, value: int = 1) -> None:
        """Sets an option of TCP, if this system has it and the connection goes through no gateway."""
        if isinstance(self._watched.socket, socket.socket) and hasattr(socket, option):
            with contextlib.suppress(OSError):
                self._watched.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def _parse_global_request(self, m: paramiko.Message) -> None:
        super()._parse_global_request(m)  # type: ignore[misc]
        # sshd has sent its keys. It holds back its next answer until that message is acknowledged.
        self._set_tcp_option("TCP_QUICKACK")

    def open_session(
        self, window_size: int | None = None, max_packet_size: int | None = None, timeout: float | None = None
    ) -> paramiko.Channel:
        """Opens a session with a `ReceiveBuffer` for its stdout. Before its command runs, nothing can come.

        Raises:
            SessionRefusedError: the connection is well, but sshd lets no further session run on it.
        """
        try:
            channel = super().open_session(window_size, max_packet_size, timeout)
        except paramiko.SSHException as error:
            if self.is_active() and (isinstance(error, paramiko.ChannelException) or str(error) == _TAKEN):
                raise SessionRefusedError(self.open_failure) from error
            raise
        channel.in_buffer = ReceiveBuffer()
        channel.__class__ = _Channel
        return channel

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        channels = self._channels.values()  # type: ignore[attr-defined]
        return sum(isinstance(channel, _Channel) and not channel.closed for channel in channels)

    def _send_user_message(self, data: paramiko.Message) -> None:
        if threading.current_thread() is self and not self.clear_to_send.is_set():
            self._postponed.append(data)
        else:
            super()._send_user_message(data)  # type: ignore[misc]

    def _send_message(self, data: paramiko.Message) -> None:
        """Drops messages of a closed channel. A channel is closed before its end is sent, under the same lock."""
        sender = getattr(data, "sender", None)
        if sender is None or not sender.closed:
            super()._send_message(data)  # type: ignore[misc]

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        while self._postponed:
            with self.clear_to_send_lock:
                self._send_message(self._postponed.popleft())
