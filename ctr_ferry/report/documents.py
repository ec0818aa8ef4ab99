"""What scripts read besides the results of commands on hosts: the shapes of JSON. docs/schema is made from them."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from ctr_ferry.errors import ErrorData
from ctr_ferry.report.outcome import Status


class Warned(TypedDict):
    """What to know of several hosts.

    Attributes:
        kind: ``digests-differ``, where a name points at different images on different hosts, or ``host-note``.
        reference: the name that points at different images.
        digests: the hosts that have each digest, the digest of most hosts first.
        hosts: the hosts that a note is about.
    """

    kind: str
    message: str
    reference: NotRequired[str]
    digests: NotRequired[dict[str, list[str]]]
    hosts: NotRequired[list[str]]


class InventoryHost(TypedDict):
    """One host of the inventory, and how it is reached; where its variables are wrong, their error instead.

    Attributes:
        groups: the groups that it is in.
        left_out: true where the inventory says that ctr-ferry has nothing to do with it.
        address, port, user: for SSH; the port and the user are null where ssh_config decides.
        become: whether sudo may be used.
        password, become_password: whether there is a password for SSH, and one for sudo.
        gateway: the jump host, or the command of a ProxyCommand; null without one.
        known_hosts: the files with the keys of hosts.
        accept_new: whether the key of a host that is not known yet is stored.
        ctr: the settings of containerd that the inventory has, by name.
        registries: those that ctr_registries describes.
    """

    host: str
    groups: list[str]
    left_out: NotRequired[bool]
    error: NotRequired[ErrorData]
    address: NotRequired[str]
    port: NotRequired[int | None]
    user: NotRequired[str | None]
    become: NotRequired[bool]
    password: NotRequired[bool]
    become_password: NotRequired[bool]
    gateway: NotRequired[str | None]
    known_hosts: NotRequired[list[str]]
    accept_new: NotRequired[bool]
    ctr: NotRequired[dict[str, str]]
    registries: NotRequired[list[str]]


class InventoryData(TypedDict):
    """The inventory as ctr-ferry understands it.

    Attributes:
        inventory: the file.
    """

    inventory: str
    hosts: list[InventoryHost]
    notes: list[str]


class RunSummary(TypedDict):
    """One past run.

    Attributes:
        id: of the run; ``show --run`` takes it.
        commands: the names of its commands.
        hosts: how many hosts it had.
        statuses: how many outcomes had each status.
        unfinished: how many hosts lack the outcome of some command.
        seconds: how long it took; null where it has not ended.
        exit: its exit status; null where it has not ended.
        state: ``ended``, ``running`` or ``killed``.
    """

    id: str
    started: str
    commands: list[str]
    hosts: int
    statuses: dict[str, int]
    unfinished: int
    seconds: float | None
    exit: int | None
    state: str


class RunsData(TypedDict):
    """The past runs.

    Attributes:
        runs: the oldest first.
    """

    runs: list[RunSummary]


class RecordedOutcome(TypedDict):
    """What one command of a past run did on one host.

    Attributes:
        result: as the schema of that command has it.
        lines: what a person read.
    """

    host: str
    status: Status
    seconds: float
    result: NotRequired[dict[str, Any]]
    lines: NotRequired[list[str]]
    error: NotRequired[ErrorData]


class OtherHost(TypedDict):
    """A further host that was asked, such as the source of a copy."""

    host: str
    error: NotRequired[ErrorData]


class RecordedCommand(TypedDict):
    """One command of a past run.

    Attributes:
        others: further hosts that were asked, such as the source of a copy.
    """

    command: str
    arguments: dict[str, Any]
    dry_run: bool
    outcomes: list[RecordedOutcome]
    warnings: NotRequired[list[Warned]]
    others: NotRequired[list[OtherHost]]


class CompletionData(TypedDict):
    """What a shell reads to complete lines.

    Attributes:
        shell: one of bash, zsh, fish.
        script: the text for it.
    """

    shell: str
    script: str


class AskedCommand(TypedDict):
    """One command of the command line.

    Attributes:
        looks: whether it changes no host.
    """

    command: str
    dry_run: bool
    looks: bool


class RunData(TypedDict):
    """The record of one run: its run.json, with the results of each host.

    Attributes:
        id: of the run.
        ended: when the run ended; null where it has not.
        exit: its exit status; null where it has not ended.
        pid, pid_started: the process, and when it started, in the kernel's ticks.
        commands_asked, asked: the commands of the line, and what is known of those on hosts.
        patterns: the words of ``-H``.
        options: the words of Fabric's own options before the commands, such as ``-i``.
        hosts: the hosts of the run.
        versions: of ctr-ferry, Python and the libraries.
        commands: those that began.
    """

    id: str
    started: str
    ended: str | None
    exit: int | None
    pid: int
    pid_started: str | None
    commands_asked: list[str]
    asked: list[AskedCommand]
    patterns: list[str]
    options: NotRequired[list[str]]
    hosts: list[str]
    versions: dict[str, str]
    commands: list[RecordedCommand]
