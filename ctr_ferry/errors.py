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
        ├── SessionRefused            session-refused: sshd allows fewer sessions at once than are needed (MaxSessions)
        ├── DiskFull                  disk-full
        ├── CommandFailed             command-failed
        ├── Interrupted               interrupted
        ├── VerifyFailed              verify-failed
        ├── PlanOutdated              plan-outdated: the host is not as it was when that was planned
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
        │   ├── RegistryRefused       registry-refused: it does not take the request, or what was sent
        │   ├── RegistryFailed        registry-failed: 5xx, too many requests, a quota
        │   └── RegistryBrokenOff     registry-broken-off: in the middle of a transfer; the next run continues
        └── SomeFailed                some-failed: the command failed for some of several images
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self, TypedDict

# What a hint says to run on the host of the error; `report/hints.py` puts the host in the place of HOST.
ITSELF = "ARCHIVE"  # in the hint of a BadArchive: its file, whose name is known further up
READ_LOG = (
    "read containerd's log: fab -H HOST run "
    "'journalctl -n 50 -u containerd -u k3s -u k3s-agent -u rke2-server -u rke2-agent'"
)
LACKS_MEMORY = "it may lack memory; read its log: fab -H HOST run 'dmesg | tail -n 50'"
CHECK_ONE = "see what is wrong there: fab -H HOST doctor"


class ErrorData(TypedDict):
    """An error as ``--json`` has it.

    Attributes:
        kind: its name, which stays; docs/troubleshooting.md has all of them.
        message: what happened, in one sentence.
        said: what the host, the registry or a library printed; may be empty.
        hint: what to do next; may be empty.
    """

    kind: str
    message: str
    said: str
    hint: str


class FerryError(Exception):
    """The root of the tree. ``result`` is the command's own result, if some work was done before the error."""

    kind: ClassVar[str] = "error"  # a stable name: scripts read it from --json
    exit_code: ClassVar[int] = 1

    def __init_subclass__(cls, *, kind: str = "error") -> None:
        cls.kind = kind

    def __init__(self, message: str, *, detail: str = "", hint: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.message, self.detail, self.hint, self.result = message, detail, hint, result

    def to_json(self) -> ErrorData:
        """The error as ``--json`` has it."""
        return {"kind": self.kind, "message": self.message, "said": self.detail, "hint": self.hint}


class UsageError(FerryError, kind="bad-arguments"):
    """The command line, the inventory or a file is wrong; no host was touched."""

    exit_code = 2


class BadReference(UsageError, kind="bad-reference"):
    """A text is no image reference."""


class BadInventory(UsageError, kind="bad-inventory"):
    """The inventory cannot be read, or something in it is wrong."""


class BadArchive(UsageError, kind="bad-archive"):
    """A file is no image archive, or the archive is broken or cannot be trusted."""


class UnknownHost(UsageError, kind="unknown-host"):
    """Neither the inventory nor ssh_config knows a name."""


class NoHosts(UsageError, kind="no-hosts"):
    """A pattern such as ``@failed`` fits no host."""


class Unreachable(FerryError, kind="host-unreachable"):
    """There is no SSH session: the connection was refused, or there is no route."""

    exit_code = 4


class HostUnresolved(Unreachable, kind="host-unresolved"):
    """The host's name does not resolve."""


class ConnectTimeout(Unreachable, kind="connect-timeout"):
    """The host did not accept the connection or finish its greeting in time."""


class HostKeyUnknown(Unreachable, kind="host-key-unknown"):
    """known_hosts has no key for this host, and unknown keys are refused."""


class HostKeyChanged(Unreachable, kind="host-key-changed"):
    """known_hosts has another key for this host. Such a host is always refused."""


class NoCommonAlgorithm(Unreachable, kind="no-common-algorithm"):
    """The host's sshd offers no cipher, MAC, key exchange or host key type that ctr-ferry accepts as safe."""


class LoginRefused(Unreachable, kind="login-refused"):
    """The host accepts none of the login user's keys and passwords."""


class ConnectionLost(Unreachable, kind="connection-lost"):
    """The connection broke while a command ran."""


class InternalError(FerryError, kind="internal-error"):
    """A fault of ctr-ferry. It is collected like any other error, so that work on other hosts goes on."""


class CannotWrite(FerryError, kind="cannot-write"):
    """The control machine could not write an archive: no space, no permission, or another file is there."""


class NothingFound(FerryError, kind="nothing-found"):
    """No host of the fleet has what was searched for."""


class NotStarted(FerryError, kind="not-started"):
    """Nothing was done on this host: others failed before, or the run was interrupted."""


class HostError(FerryError, kind="host-error"):
    """The host answered, and something is wrong there."""


class CtrNotFound(HostError, kind="ctr-not-found"):
    """There is no ctr in PATH or at the usual places."""


class DaemonUnreachable(HostError, kind="daemon-unreachable"):
    """containerd does not answer on its socket."""


class PermissionDenied(HostError, kind="permission-denied"):
    """The login user may not use containerd's socket, and sudo does not help."""

    @classmethod
    def by_sudo(cls, message: str, said: str) -> Self:
        """The error for the words of sudo. The words say what to do."""
        if "not found" in said:
            hint = "there is no sudo: log in as root, with ansible_user: root in the inventory"
        elif "must have a tty" in said:
            hint = "let sudo work without a terminal, with `Defaults !requiretty` in /etc/sudoers there"
        elif said and not re.search("password|try again", said):
            hint = "let that user become root, in /etc/sudoers there, or log in as root"
        else:
            hint = (
                "log in as root, or set ansible_become: true for this host in the inventory, and give sudo's password "
                "in FABRIC_SUDO_PASSWORD or with --prompt-for-sudo-password"
            )
        return cls(message, detail=said, hint=hint)


class GarbledAnswer(HostError, kind="garbled-answer"):
    """An answer does not have the form that this version of ctr prints."""


class AnswerTooLarge(GarbledAnswer, kind="answer-too-large"):
    """The host printed more than the limit for one answer, or for the answers of all hosts together."""


class RemoteTimeout(HostError, kind="timeout"):
    """A remote command exceeded its time limit and was ended."""


class ImageNotFound(HostError, kind="image-not-found"):
    """The namespace of the host has no such image; ``namespaces`` have it instead."""

    namespaces: tuple[str, ...] = ()


class ReferenceExists(HostError, kind="reference-exists"):
    """The name points at another digest already."""


class ContentMissing(HostError, kind="content-missing"):
    """The image has a name, but some of its blobs are missing."""


class ContentCorrupt(HostError, kind="content-corrupt"):
    """The bytes of a blob do not match its digest."""


class SourceLost(HostError, kind="source-lost"):
    """The source of the blobs stopped; the destination host is well."""


class PlatformMissing(HostError, kind="platform-missing"):
    """The image has no content for the platform in question."""


class MethodUnsupported(HostError, kind="method-unsupported"):
    """This version of ctr does not support the method."""


class SessionRefused(HostError, kind="session-refused"):
    """sshd lets no further session run on the connection (MaxSessions). The connection itself is well."""


class DiskFull(HostError, kind="disk-full"):
    """There is no space where containerd writes."""


class Interrupted(HostError, kind="interrupted"):
    """The operator, or a signal, ended the run while this host was at work."""


class CommandFailed(HostError, kind="command-failed"):
    """A command failed in a way that has no kind of its own."""


class VerifyFailed(HostError, kind="verify-failed"):
    """ctr reported success, but the host has something else."""


class Drift(HostError, kind="drift"):
    """The host has another digest than other hosts, or than was asked for."""


class PlanOutdated(HostError, kind="plan-outdated"):
    """The host is not as it was when the plan was made."""


class NotUnpacked(HostError, kind="not-unpacked"):
    """The image is complete but not unpacked, so that no container can start from it at once."""


class InUse(HostError, kind="in-use"):
    """A container on the host uses the image."""


class Unhealthy(HostError, kind="unhealthy"):
    """The doctor found something that must be repaired before work on the host's images."""


class RegistryError(HostError, kind="registry-error"):
    """A registry does not serve this host as it should."""


class RegistryUnresolved(RegistryError, kind="registry-unresolved"):
    """The registry's name does not resolve on the host."""


class RegistryUnreachable(RegistryError, kind="registry-unreachable"):
    """The registry refuses the connection, or the host has no route to it."""


class RegistryTimeout(RegistryError, kind="registry-timeout"):
    """The registry does not answer, or stopped answering."""


class RegistryTls(RegistryError, kind="registry-tls"):
    """The registry's certificate cannot be trusted."""


class RegistryScheme(RegistryError, kind="registry-scheme"):
    """ctr used http where the registry expects https, or the reverse."""


class RegistryUnauthorized(RegistryError, kind="registry-unauthorized"):
    """The registry requires a login, or refuses the one that it got."""


class RegistryDenied(RegistryError, kind="registry-denied"):
    """The login is right, but lacks the permission."""


class RepositoryNotFound(RegistryError, kind="repository-not-found"):
    """The registry has no such repository, or no such tag in it."""


class RegistryRefused(RegistryError, kind="registry-refused"):
    """The registry does not take the request, or what was sent with it; trying again does not help."""


class RegistryFailed(RegistryError, kind="registry-failed"):
    """The registry reports a failure of its own: 5xx, too many requests, a quota."""


class RegistryBrokenOff(RegistryError, kind="registry-broken-off"):
    """The registry broke off in the middle of a transfer."""


class SomeFailed(HostError, kind="some-failed"):
    """The command failed for some of several images on one host; ``result`` has each image's status."""
