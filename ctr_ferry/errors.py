"""Every error that an operator can meet.

Each has three parts: `message` (what happened, in one sentence and in the user's terms), `detail` (what the host or a
library printed) and `hint` (what to do next, in one sentence)::

    FerryError                        exit 1
    ├── UsageError                    exit 2   bad-arguments: nothing was started
    │   ├── BadReference              bad-reference
    │   ├── BadInventory              bad-inventory
    │   ├── BadArchive                bad-archive
    │   ├── UnknownHost               unknown-host
    │   └── NoHosts                   no-hosts: such as @failed of a run without failures
    ├── Unreachable                   exit 4   host-unreachable: no SSH session
    │   ├── HostUnresolved            host-unresolved
    │   ├── ConnectTimeout            connect-timeout
    │   ├── HostKeyUnknown            host-key-unknown
    │   ├── HostKeyChanged            host-key-changed
    │   ├── NoCommonAlgorithm         no-common-algorithm: the host's sshd offers only unsafe algorithms
    │   ├── LoginRefused              login-refused
    │   └── ConnectionLost            connection-lost
    ├── InternalError                 internal-error: a fault of ctr-ferry
    ├── CannotWrite                   cannot-write: an archive, on the control machine
    ├── NothingFound                  nothing-found: no host has what was searched for
    ├── NotStarted                    not-started: skipped, because others failed or the run was interrupted
    └── HostError                     the host answered, and something is wrong there
        ├── CtrNotFound               ctr-not-found
        ├── DaemonUnreachable         daemon-unreachable
        ├── PermissionDenied          permission-denied
        ├── GarbledAnswer             garbled-answer
        │   └── AnswerTooLarge        answer-too-large: the host printed more than ctr-ferry reads
        ├── RemoteTimeout             timeout
        ├── ImageNotFound             image-not-found
        ├── ReferenceExists           reference-exists
        ├── ContentMissing            content-missing
        ├── ContentCorrupt            content-corrupt: a blob does not match its digest
        ├── SourceLost                source-lost: the source of the blobs stopped
        ├── PlatformMissing           platform-missing
        ├── MethodUnsupported         method-unsupported
        ├── DiskFull                  disk-full
        ├── CommandFailed             command-failed
        ├── Interrupted               interrupted
        ├── VerifyFailed              verify-failed
        ├── Drift                     drift: another digest than other hosts have, or than was asked for
        ├── NotUnpacked               not-unpacked
        ├── InUse                     in-use: a container uses the image
        ├── Unhealthy                 unhealthy: the doctor found something to repair first
        ├── RegistryError             registry-error: how a registry behaves towards that host
        │   ├── RegistryUnresolved    registry-unresolved
        │   ├── RegistryUnreachable   registry-unreachable: it refuses the connection, or there is no route
        │   ├── RegistryTimeout       registry-timeout: it does not answer, or stopped answering
        │   ├── RegistryTls           registry-tls: its certificate cannot be trusted
        │   ├── RegistryScheme        registry-scheme: http instead of https, or the reverse
        │   ├── RegistryUnauthorized  registry-unauthorized
        │   ├── RegistryDenied        registry-denied: the login is right, but lacks the permission
        │   ├── RepositoryNotFound    repository-not-found: or the repository lacks the tag
        │   ├── RegistryFailed        registry-failed: 5xx, too many requests, a quota
        │   └── RegistryBrokenOff     registry-broken-off: in the middle of a transfer; the next run continues
        └── SomeFailed                some-failed: the command failed for some of several images
"""

from __future__ import annotations

from typing import Any, ClassVar


class FerryError(Exception):
    """The root of the tree. ``result`` is the command's own result, if some work was done before the error."""

    kind: ClassVar[str] = "error"  # a stable name: scripts read it from --json
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, detail: str = "", hint: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.message, self.detail, self.hint, self.result = message, detail, hint, result

    def to_json(self) -> dict[str, str]:
        """The error as ``--json`` has it."""
        return {"kind": self.kind, "message": self.message, "said": self.detail, "hint": self.hint}


class UsageError(FerryError):
    """The command line, the inventory or a file is wrong; no host was touched."""

    kind = "bad-arguments"
    exit_code = 2


class BadReference(UsageError):
    """A text is no image reference."""

    kind = "bad-reference"


class BadInventory(UsageError):
    """The inventory cannot be read, or something in it is wrong."""

    kind = "bad-inventory"


class BadArchive(UsageError):
    """A file is no image archive, or the archive is broken or cannot be trusted."""

    kind = "bad-archive"


class UnknownHost(UsageError):
    """Neither the inventory nor ssh_config knows a name."""

    kind = "unknown-host"


class NoHosts(UsageError):
    """A pattern such as ``@failed`` fits no host."""

    kind = "no-hosts"


class Unreachable(FerryError):
    """There is no SSH session: the connection was refused, or there is no route."""

    kind = "host-unreachable"
    exit_code = 4
    may_pass: ClassVar[bool] = True  # whether another attempt may succeed


class HostUnresolved(Unreachable):
    """The host's name does not resolve."""

    kind = "host-unresolved"
    may_pass = False


class ConnectTimeout(Unreachable):
    """The host did not accept the connection or finish its greeting in time."""

    kind = "connect-timeout"


class HostKeyUnknown(Unreachable):
    """known_hosts has no key for this host, and unknown keys are refused."""

    kind = "host-key-unknown"
    may_pass = False


class HostKeyChanged(Unreachable):
    """known_hosts has another key for this host. Such a host is always refused."""

    kind = "host-key-changed"
    may_pass = False


class NoCommonAlgorithm(Unreachable):
    """The host's sshd offers no cipher, MAC, key exchange or host key type that ctr-ferry accepts as safe."""

    kind = "no-common-algorithm"
    may_pass = False


class LoginRefused(Unreachable):
    """The host accepts none of the login user's keys and passwords."""

    kind = "login-refused"
    may_pass = False


class ConnectionLost(Unreachable):
    """The connection broke while a command ran."""

    kind = "connection-lost"
    may_pass = False


class InternalError(FerryError):
    """A fault of ctr-ferry. It is collected like any other error, so that work on other hosts goes on."""

    kind = "internal-error"


class CannotWrite(FerryError):
    """The control machine could not write an archive: no space, no permission, or another file is there."""

    kind = "cannot-write"


class NothingFound(FerryError):
    """No host of the fleet has what was searched for."""

    kind = "nothing-found"


class NotStarted(FerryError):
    """Nothing was done on this host: others failed before, or the run was interrupted."""

    kind = "not-started"


class HostError(FerryError):
    """The host answered, and something is wrong there."""

    kind = "host-error"


class CtrNotFound(HostError):
    """There is no ctr in PATH or at the usual places."""

    kind = "ctr-not-found"


class DaemonUnreachable(HostError):
    """containerd does not answer on its socket."""

    kind = "daemon-unreachable"


class PermissionDenied(HostError):
    """The login user may not use containerd's socket, and sudo does not help."""

    kind = "permission-denied"


class GarbledAnswer(HostError):
    """An answer does not have the form that this version of ctr prints."""

    kind = "garbled-answer"


class AnswerTooLarge(GarbledAnswer):
    """The host printed more than the limit for one answer, or for the answers of all hosts together."""

    kind = "answer-too-large"


class RemoteTimeout(HostError):
    """A remote command exceeded its time limit and was ended."""

    kind = "timeout"


class ImageNotFound(HostError):
    """The namespace of the host has no such image."""

    kind = "image-not-found"


class ReferenceExists(HostError):
    """The name points at another digest already."""

    kind = "reference-exists"


class ContentMissing(HostError):
    """The image has a name, but some of its blobs are missing."""

    kind = "content-missing"


class ContentCorrupt(HostError):
    """The bytes of a blob do not match its digest."""

    kind = "content-corrupt"


class SourceLost(HostError):
    """The source of the blobs stopped; the destination host is well."""

    kind = "source-lost"


class PlatformMissing(HostError):
    """The image has no content for the platform in question."""

    kind = "platform-missing"


class MethodUnsupported(HostError):
    """This version of ctr does not support the method."""

    kind = "method-unsupported"


class DiskFull(HostError):
    """There is no space where containerd writes."""

    kind = "disk-full"


class Interrupted(HostError):
    """The operator, or a signal, ended the run while this host was at work."""

    kind = "interrupted"


class CommandFailed(HostError):
    """A command failed in a way that has no kind of its own."""

    kind = "command-failed"


class VerifyFailed(HostError):
    """ctr reported success, but the host has something else."""

    kind = "verify-failed"


class Drift(HostError):
    """The host has another digest than other hosts, or than was asked for."""

    kind = "drift"


class NotUnpacked(HostError):
    """The image is complete but not unpacked, so that no container can start from it at once."""

    kind = "not-unpacked"


class InUse(HostError):
    """A container on the host uses the image."""

    kind = "in-use"


class Unhealthy(HostError):
    """The doctor found something that must be repaired before work on the host's images."""

    kind = "unhealthy"


class RegistryError(HostError):
    """A registry does not serve this host as it should."""

    kind = "registry-error"


class RegistryUnresolved(RegistryError):
    """The registry's name does not resolve on the host."""

    kind = "registry-unresolved"


class RegistryUnreachable(RegistryError):
    """The registry refuses the connection, or the host has no route to it."""

    kind = "registry-unreachable"


class RegistryTimeout(RegistryError):
    """The registry does not answer, or stopped answering."""

    kind = "registry-timeout"


class RegistryTls(RegistryError):
    """The registry's certificate cannot be trusted."""

    kind = "registry-tls"


class RegistryScheme(RegistryError):
    """ctr used http where the registry expects https, or the reverse."""

    kind = "registry-scheme"


class RegistryUnauthorized(RegistryError):
    """The registry requires a login, or refuses the one that it got."""

    kind = "registry-unauthorized"


class RegistryDenied(RegistryError):
    """The login is right, but lacks the permission."""

    kind = "registry-denied"


class RepositoryNotFound(RegistryError):
    """The registry has no such repository, or no such tag in it."""

    kind = "repository-not-found"


class RegistryFailed(RegistryError):
    """The registry reports a failure of its own: 5xx, too many requests, a quota."""

    kind = "registry-failed"


class RegistryBrokenOff(RegistryError):
    """The registry broke off in the middle of a transfer."""

    kind = "registry-broken-off"


class SomeFailed(HostError):
    """The command failed for some of several images on one host; ``result`` has each image's status."""

    kind = "some-failed"
