"""Every error that an operator can meet. Each has three parts: what happened, what the host said, what to do.

::

    FerryError                      exit 1
    ├── UsageError                  exit 2   bad-arguments: nothing was started
    │   ├── BadReference            bad-reference
    │   ├── BadInventory            bad-inventory
    │   ├── BadArchive              bad-archive
    │   ├── UnknownHost             unknown-host
    │   └── NoHosts                 no-hosts: @failed of a run without failures
    ├── Unreachable                 exit 4   host-unreachable: no ssh session
    │   ├── HostUnresolved          host-unresolved
    │   ├── ConnectTimeout          connect-timeout
    │   ├── HostKeyUnknown          host-key-unknown
    │   ├── HostKeyChanged          host-key-changed
    │   ├── NoCommonAlgorithm       no-common-algorithm: the host's ssh has only ciphers that are not safe
    │   ├── LoginRefused            login-refused
    │   └── ConnectionLost          connection-lost
    ├── InternalError               internal-error: a fault of ours
    ├── CannotWrite             cannot-write: the control machine, where an archive is to be
    ├── NothingFound                nothing-found: no host has what was looked for
    ├── NotStarted                  not-started: skipped, because of others or an interrupt
    └── HostError                   the host answered, and something is wrong there
        ├── CtrNotFound             ctr-not-found
        ├── DaemonUnreachable       daemon-unreachable
        ├── PermissionDenied        permission-denied
        ├── GarbledAnswer           garbled-answer
        │   └── AnswerTooLarge        answer-too-large: the host says more than is taken in
        ├── RemoteTimeout           timeout
        ├── ImageNotFound           image-not-found
        ├── ReferenceExists         reference-exists
        ├── ContentMissing          content-missing
        ├── ContentCorrupt          content-corrupt: a blob is not what its digest says
        ├── SourceLost              source-lost: where the blobs come from gives no more
        ├── PlatformMissing         platform-missing
        ├── MethodUnsupported       method-unsupported
        ├── DiskFull                disk-full
        ├── CommandFailed           command-failed
        ├── Interrupted             interrupted
        ├── VerifyFailed            verify-failed
        ├── Drift                   drift: not what the other hosts, or the digest asked for, say
        ├── NotUnpacked             not-unpacked
        ├── InUse                   in-use: a container needs it
        ├── Unhealthy               unhealthy: the doctor found something that is to be mended first
        ├── RegistryError           registry-error: what a registry does, or does not do, as that host sees it
        │   ├── RegistryUnresolved    registry-unresolved
        │   ├── RegistryUnreachable   registry-unreachable: it refuses the connection, or there is no way to it
        │   ├── RegistryTimeout       registry-timeout: it does not answer, or stopped to
        │   ├── RegistryTls           registry-tls: its certificate is not to be believed
        │   ├── RegistryScheme        registry-scheme: http where it wants https, or the reverse
        │   ├── RegistryUnauthorized  registry-unauthorized
        │   ├── RegistryDenied        registry-denied: the login is right, but may not do this
        │   ├── RepositoryNotFound    repository-not-found: or no such tag in it
        │   ├── RegistryFailed        registry-failed: 5xx, too many requests, a quota
        │   └── RegistryBrokenOff     registry-broken-off: in the middle; run again, it goes on from there
        └── SomeFailed              some-failed: several images, not all of them done

The kinds are stable names: scripts read them from ``--json``.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FerryError(Exception):
    """The root of the tree.

    Args:
        message: what happened, in the user's terms, one sentence.
        detail: what the host or the library said, if anything.
        hint: what to do next, one sentence.
        result: what was done before it went wrong (SomeFailed), as the command's own result.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, detail: str = "", hint: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.result = result

    def to_json(self) -> dict[str, str]:
        """The shape that it has in ``--json``."""
        return {"kind": self.kind, "message": self.message, "said": self.detail, "hint": self.hint}


class UsageError(FerryError):
    """The command line, the inventory or a file is wrong; no host was touched."""

    kind = "bad-arguments"
    exit_code = 2


class BadReference(UsageError):
    """Not an image reference."""

    kind = "bad-reference"


class BadInventory(UsageError):
    """``hosts.yaml`` cannot be read or says something that we do not understand."""

    kind = "bad-inventory"


class BadArchive(UsageError):
    """No image archive, or one that is broken or cannot be trusted."""

    kind = "bad-archive"


class UnknownHost(UsageError):
    """A name that neither the inventory nor ssh_config knows."""

    kind = "unknown-host"


class NoHosts(UsageError):
    """A pattern such as ``@failed`` fits no host."""

    kind = "no-hosts"


class Unreachable(FerryError):
    """No SSH session could be had: refused, no route, no such name."""

    kind = "host-unreachable"
    exit_code = 4
    may_pass: ClassVar[bool] = True  # whether trying again makes sense


class HostUnresolved(Unreachable):
    """The host's name does not resolve."""

    kind = "host-unresolved"
    may_pass = False


class ConnectTimeout(Unreachable):
    """The host accepted nothing, or never finished its greeting, in time."""

    kind = "connect-timeout"


class HostKeyUnknown(Unreachable):
    """known_hosts has no key for this host, and unknown keys are refused."""

    kind = "host-key-unknown"
    may_pass = False


class HostKeyChanged(Unreachable):
    """known_hosts has another key for this host. Always refused."""

    kind = "host-key-changed"
    may_pass = False


class NoCommonAlgorithm(Unreachable):
    """The host's sshd offers no cipher, MAC, key exchange or host key type that we hold for safe."""

    kind = "no-common-algorithm"
    may_pass = False


class LoginRefused(Unreachable):
    """The host takes none of our keys or passwords."""

    kind = "login-refused"
    may_pass = False


class ConnectionLost(Unreachable):
    """The connection broke while a command ran."""

    kind = "connection-lost"
    may_pass = False


class InternalError(FerryError):
    """Something that we did not foresee; collected like any other, so that other hosts go on."""

    kind = "internal-error"


class CannotWrite(FerryError):
    """The control machine could not write an archive: no space, no permission, or something else is there."""

    kind = "cannot-write"


class NothingFound(FerryError):
    """No host of the fleet has what was looked for."""

    kind = "nothing-found"


class NotStarted(FerryError):
    """Nothing was done on this host: others failed before, or the run was cut short."""

    kind = "not-started"


class HostError(FerryError):
    """The host was reached; something on it is not as it must be."""

    kind = "host-error"


class CtrNotFound(HostError):
    """No ctr on PATH nor at the usual places."""

    kind = "ctr-not-found"


class DaemonUnreachable(HostError):
    """containerd does not answer on its socket."""

    kind = "daemon-unreachable"


class PermissionDenied(HostError):
    """The login user may not use the socket, and sudo does not help."""

    kind = "permission-denied"


class GarbledAnswer(HostError):
    """The answer does not have the shape that this ctr's version gives."""

    kind = "garbled-answer"


class AnswerTooLarge(GarbledAnswer):
    """The host printed more than one question, or the answers of all hosts together, may hold."""

    kind = "answer-too-large"


class RemoteTimeout(HostError):
    """A remote command ran past its time limit and was ended."""

    kind = "timeout"


class ImageNotFound(HostError):
    """No such image in that namespace of the host."""

    kind = "image-not-found"


class ReferenceExists(HostError):
    """The name is taken by another digest."""

    kind = "reference-exists"


class ContentMissing(HostError):
    """The image is named, but some of its blobs are not there."""

    kind = "content-missing"


class ContentCorrupt(HostError):
    """A blob's bytes are not those that its digest names."""

    kind = "content-corrupt"


class SourceLost(HostError):
    """Where blobs are read from gives no more of them; the host that they were for is well."""

    kind = "source-lost"


class PlatformMissing(HostError):
    """The image has no content for the wanted platform."""

    kind = "platform-missing"


class MethodUnsupported(HostError):
    """This ctr cannot do it that way."""

    kind = "method-unsupported"


class DiskFull(HostError):
    """No space where containerd writes."""

    kind = "disk-full"


class Interrupted(HostError):
    """The operator, or a signal, ended the run while this host was at work."""

    kind = "interrupted"


class CommandFailed(HostError):
    """ctr failed in a way that has no name of its own."""

    kind = "command-failed"


class VerifyFailed(HostError):
    """ctr said that it was done; the host says otherwise."""

    kind = "verify-failed"


class Drift(HostError):
    """The host has another digest than it should."""

    kind = "drift"


class NotUnpacked(HostError):
    """The image is whole, but not unpacked, so that no container can start from it at once."""

    kind = "not-unpacked"


class InUse(HostError):
    """A container on the host uses the image."""

    kind = "in-use"


class Unhealthy(HostError):
    """The doctor's finding: something on the host is to be mended before its images can be worked with."""

    kind = "unhealthy"


class RegistryError(HostError):
    """What a registry does, or does not do, as that host sees it."""

    kind = "registry-error"


class RegistryUnresolved(RegistryError):
    """The registry's name does not resolve on that host."""

    kind = "registry-unresolved"


class RegistryUnreachable(RegistryError):
    """The registry refuses the connection, or there is no way to it from that host."""

    kind = "registry-unreachable"


class RegistryTimeout(RegistryError):
    """The registry does not answer, or stopped to."""

    kind = "registry-timeout"


class RegistryTls(RegistryError):
    """The registry's certificate is not to be believed."""

    kind = "registry-tls"


class RegistryScheme(RegistryError):
    """http where it wants https, or the reverse."""

    kind = "registry-scheme"


class RegistryUnauthorized(RegistryError):
    """The registry wants a login, or another one."""

    kind = "registry-unauthorized"


class RegistryDenied(RegistryError):
    """The login is right, but may not do this."""

    kind = "registry-denied"


class RepositoryNotFound(RegistryError):
    """The registry has no such repository, or no such tag in it."""

    kind = "repository-not-found"


class RegistryFailed(RegistryError):
    """The registry fails by its own word: 5xx, too many requests, a quota."""

    kind = "registry-failed"


class RegistryBrokenOff(RegistryError):
    """The registry broke off in the middle."""

    kind = "registry-broken-off"


class SomeFailed(HostError):
    """Of several images on one host, some could not be done; ``result`` tells which."""

    kind = "some-failed"
