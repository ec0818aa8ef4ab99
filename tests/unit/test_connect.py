"""A ProxyCommand gets its tokens filled in, and its end is noticed at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ctr_ferry.ssh.connect import Proxy, expand


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("%h:%p", "10.0.0.1:2222"),
        ("%r@%h", "ops@10.0.0.1"),
        ("100%%h", "100%h"),
        ("%%%p", "%2222"),
        ("%n%", "%n%"),
        ("plain", "plain"),
    ],
)
def test_the_tokens_of_a_proxy_command_are_filled_in(word: str, expanded: str) -> None:
    assert expand(word, "10.0.0.1", 2222, "ops") == expanded


def test_a_proxy_commands_output_is_read_as_it_comes_and_its_end_is_noticed() -> None:
    proxy = Proxy("/bin/sh -c 'echo hello; read -r line; echo $line'")
    with ExitStack() as stack:
        for stream in (proxy.process.stdin, proxy.process.stdout, proxy.process.stderr):
            stack.enter_context(stream)  # type: ignore[arg-type]
        assert proxy.recv(100) == b"hello\n"
        proxy.settimeout(0.01)
        with pytest.raises(TimeoutError):
            proxy.recv(100)
        proxy.settimeout(None)
        proxy.send(b"on\n")
        assert proxy.recv(100) == b"on\n"
        assert proxy.recv(100) == b""
        proxy.process.wait()


def test_a_proxy_command_that_takes_no_more_stops_no_write_for_ever() -> None:
    proxy = Proxy("sleep 60")
    with ExitStack() as stack:
        for stream in (proxy.process.stdin, proxy.process.stdout, proxy.process.stderr):
            stack.enter_context(stream)  # type: ignore[arg-type]
        proxy.settimeout(0.01)
        with pytest.raises(TimeoutError):
            while True:
                proxy.send(bytes(1 << 16))
        proxy.close()
        proxy.process.wait()
