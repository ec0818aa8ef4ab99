"""A registry as the inventory describes it."""

from __future__ import annotations

from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}
_DOCKER_HUB = {"docker.io": "registry-1.docker.io"}  # whose API is elsewhere than its name says


@dataclass(frozen=True, slots=True)
class Registry:
    """How a registry is reached.

    Attributes:
        name: as references begin, with its port where it has one.
        ca_file: of whoever signed its certificate, on the control machine.
        password_env: the environment variable that holds the password.
    """

    name: str
    scheme: str = "https"
    ca_file: str | None = None
    skip_verify: bool = False
    username: str | None = None
    password_env: str | None = None

    @property
    def host(self) -> str:
        """Its host name or address, without brackets."""
        return self._parts[0]

    @property
    def port(self) -> int:
        """Its port, by default the scheme's."""
        return int(self._parts[1] or _PORTS[self.scheme])

    @property
    def _parts(self) -> tuple[str, str]:
        host, colon, port = self.name.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = self.name, ""
        return _DOCKER_HUB.get(host, host).strip("[]"), port
