"""Helpers of the unit tests of push and pull: a registry and hosts that give the answers a test has set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cut_off import run_cut
from retagging import CHILD, CONFIG, INDEX, MANIFEST, OTHER, B, FakeHost, image, table

from ctr_ferry import errors
from ctr_ferry.images import content
from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.oci.registry import Login, Registries, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry import access, credentials, push_pull
from ctr_ferry.registry.pull import PullJob
from ctr_ferry.registry.push import PushJob
from ctr_ferry.registry.results import PullResult, PushResult
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Limits
from tasks import pull, push

REF = "r.example:5000/app:1"
OK = Answer(0, b"", "")


class ScriptedRegistry:
    """A registry client that gives one answer for each question, and repeats the last one. It counts the questions.

    Attributes:
        asked: how many questions came.
        login: the login that the registry wanted.
        manifest: the body of every manifest; `INDEX` is that of the index.
        hidden: the digest that only requests with a login see.
        known_login: the login that `log_in` finds.
        plain_tokens: whether pushes get their tokens from a service without TLS.
        stored: the blobs that are there; None where the registry does not tell.
    """

    def __init__(self, *answers: str | RegistryState | None, login: Login | None = None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.login = login
        self.manifest = MANIFEST
        self.hidden: str | None = None
        self.known_login: Login | None = None
        self.plain_tokens = False
        self.stored: frozenset[str] | None = None

    def log_in(self, path: str) -> None:  # noqa: ARG002
        self.login = self.known_login

    def refuse_plain_tokens_of_pushes(self, path: str) -> None:
        if self.plain_tokens:
            raise RegistryStateError(RegistryState.PLAIN_TOKENS, path)

    def find(self, path: str, reference: str) -> str | None:  # noqa: ARG002
        self.asked += 1
        if self.login and self.hidden:
            return self.hidden
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RegistryState):
            raise RegistryStateError(answer, "its words")
        return answer

    def read(self, path: str, reference: str) -> bytes:  # noqa: ARG002
        return INDEX if reference == B else self.manifest

    def present(self, path: str, digests: Mapping[str, int]) -> frozenset[str] | None:  # noqa: ARG002
        return self.stored

    def close(self) -> None:
        pass


class Host(FakeHost):
    """A host whose ctr prints the chunks in `prints`. The host notes what is typed, and which progress is reported."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        registry = Registry("r.example:5000", scheme="http")
        self.target = replace(self.target, limits=Limits(probe=1, registry=1))
        self.know(registry)
        self.pauses: list[float] = []
        self.typed: list[str] = []
        self.moves: list[tuple[int, int | None]] = []
        self.prints: list[bytes] = []

    def know(self, registry: Registry) -> None:
        """Let the inventory describe this registry, and no other."""
        self.target = replace(self.target, variables={Registries: Registries((registry,))})

    def ask(self, script: Script, *, listener: Any = None, **_: object) -> dict[str, Answer]:
        for chunk in self.prints if listener else ():
            listener.hear(chunk)
        if listener:
            listener.end()
        return super().ask(script)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def moved(self, done: int, total: int | None) -> None:
        self.moves.append((done, total))

    @contextlib.contextmanager
    def terminal(self, limit: int) -> Iterator[Any]:  # noqa: ARG002
        yield SimpleNamespace(device="/dev/pts/9", type=self.typed.append)

    @property
    def texts(self) -> dict[str, str]:
        return {name: text for script in self.scripts for name, text in script.steps.items()}


class ScriptedFleet:
    """A fleet whose hosts work one after the other."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts = {str(number): host for number, host in enumerate(hosts)}
        self.answers: dict[str, Any] = {}
        for name, host in self.hosts.items():
            host.name, host.failed = name, False
            host.mark_failed = lambda host=host: setattr(host, "failed", True)  # type: ignore[misc]

    def each(self, work: Callable[[Host], Any], **_: object) -> dict[str, Any]:
        names = [name for name, host in self.hosts.items() if not host.failed]
        for name in names:
            try:
                self.answers[name] = work(self.hosts[name])
            except errors.FerryError as error:
                self.hosts[name].failed, self.answers[name] = True, error
        return {name: self.answers[name] for name in names}

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    def push(self, *refs: str, **options: Any) -> list[Any]:
        answers: dict[str, Any] = push.push.body(self, push.parse(ref=refs or [REF], **options))
        return list(answers.values())

    @property
    def pushed(self) -> list[bool]:
        return ["push" in host.texts for host in self.hosts.values()]


Answering = Callable[..., ScriptedRegistry]


@pytest.fixture(name="answering")
def answering_fixture(monkeypatch: pytest.MonkeyPatch) -> Answering:
    """A function that sets the registry's answers.

    `login` is a login that the registry has already asked for. `unasked` is one that it has not asked for yet.
    """

    def answering(
        *answers: str | RegistryState | None, login: Login | None = None, unasked: Login | None = None
    ) -> ScriptedRegistry:
        registry = ScriptedRegistry(*answers, login=login)
        registry.known_login = login or unasked
        monkeypatch.setattr(access, "Client", lambda *_: registry)
        monkeypatch.setattr(push_pull, "checked", content.checked)  # not hashed either, if `letters` is in use
        monkeypatch.setattr(credentials, "login", lambda _: login or unasked)
        return registry

    return answering


def pushed(host: Host, *, ref: str = REF, **options: Any) -> PushResult:
    job = PushJob(host, push.parse(ref=[ref], **options), alone=True)  # type: ignore[arg-type]
    assert job.result(Status.OK, "").status is Status.OK
    return job.run()


def pulled(host: Host, *, ref: str = REF, **options: Any) -> PullResult:
    return PullJob(host, pull.parse(ref=[ref], **options)).run()  # type: ignore[arg-type]


def stage(host: Host, digest: str) -> str:
    """Return the temporary name that is pulled first."""
    return f"r.example:5000/app:ctr-ferry.{host.run_id}@{digest}"


def cut(script: Script, folder: Path, **env: str) -> list[str]:
    """Run a script with a ctr that keeps names in a file; return the names that are left, and their digests."""
    run_cut(script, **{**env, "PATH": f"{folder}:/usr/bin:/bin"})
    return [" ".join(row.split()[:2]) for row in (folder / "names").read_text().splitlines()]


def index_host(*, absent: tuple[str, ...] = (OTHER,), **more: Any) -> Host:
    blobs = {B: INDEX, CHILD: MANIFEST, CONFIG: b"{}", **({} if OTHER in absent else {OTHER: MANIFEST})}
    return Host([image(REF, B, media_type=OCI_INDEX)], blobs=blobs, absent=absent, **more)


def here(*images: Any, check: str = "complete (3/3)", **more: Any) -> dict[str, Answer]:
    """Return the answers of a pull's script after which the host has these images."""
    rows = [f"{i.name} {i.media_type} {i.digest} {check} 1.0 MiB/1.0 MiB true" for i in images]
    checked = Answer(0, "\n".join(["REF TYPE DIGEST STATUS SIZE UNPACKED", *rows, ""]).encode(), "")
    answers = {"pull": OK, "verify": table(*images), "check": checked, "top": Answer(0, MANIFEST, ""), "visible": OK}
    return answers | more
