"""Several images of one host are pulled or pushed together, and each of them ends by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from retagging import CONFIG, OTHER, A, B, image
from scripted_registry import OK, Host, ScriptedFleet, ScriptedRegistry, here

from ctr_ferry import errors
from ctr_ferry.oci.registry import Login, RegistryState, RegistryStateError
from ctr_ferry.registry import access, credentials
from ctr_ferry.registry.pull import PullSet
from ctr_ferry.registry.push import PushSet
from ctr_ferry.registry.results import TransferSetResult
from ctr_ferry.report.outcome import Outcome, Status, as_dry_run
from ctr_ferry.secrets import Secret
from ctr_ferry.shell import Answer
from tasks import pull, push

C = f"sha256:{'c' * 64}"
ANN = Login("ann", Secret("s3cret"))


def name(repository: object) -> str:
    return f"r.example:5000/{repository}:1"


class Shelves(ScriptedRegistry):
    """A registry client that knows each repository by its name; None is a repository without the tag.

    Attributes:
        asked_for: the repository of each question about a tag.
        closed: how often the connection was closed.
    """

    def __init__(self, has: Mapping[str, str | RegistryState | None]) -> None:
        super().__init__(None)
        self.has, self.asked_for, self.closed = dict(has), list[str](), 0

    def find(self, path: str, reference: str) -> str | None:  # noqa: ARG002
        self.asked_for.append(path)
        found = self.has[path]
        if isinstance(found, RegistryState):
            raise RegistryStateError(found)
        return found

    def close(self) -> None:
        self.closed += 1


Stock = Callable[[Mapping[str, str | RegistryState | None]], Shelves]


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Stock:
    """A function that sets what the registry has."""

    def stock(has: Mapping[str, str | RegistryState | None]) -> Shelves:
        shelves = Shelves(has)
        monkeypatch.setattr(access, "Client", lambda *_: shelves)
        monkeypatch.setattr(credentials, "login", lambda _: shelves.known_login)
        return shelves

    return stock


def pulled(host: Host, *repositories: object, **options: Any) -> TransferSetResult:
    request = pull.parse(ref=[name(each) for each in repositories], **options)
    return PullSet(host, request).run()  # type: ignore[arg-type]


def pushed(host: Host, *repositories: object, **options: Any) -> TransferSetResult:
    request = push.parse(ref=[name(each) for each in repositories], **options)
    return PushSet(host, request, alone=True).run()  # type: ignore[arg-type]


def told(result: Any) -> list[tuple[str, str, str]]:
    """Repository, status and kind of error of each image."""
    words = ((each.reference.split("/")[1][:-2], each.status, each.error) for each in result.images)
    return [(repository, str(status), error["kind"] if error else "") for repository, status, error in words]


class TestAPull:
    def test_of_one_that_is_there_one_that_is_missing_and_one_that_comes_tells_each(self, stock: Stock) -> None:
        stock({"there": A, "none": None, "comes": B, "other": B})
        images = [image(name("there"), A), image(name("other"), A)]
        host = Host(images, answers=here(image(name("there"), A), image(name("comes"), B)))
        with pytest.raises(errors.SomeFailed, match="2 of 4 images were not pulled") as caught:
            pulled(host, "there", "none", "comes", "other")
        result = caught.value.result
        assert told(result) == [
            ("there", "unchanged", ""),
            ("none", "failed", "repository-not-found"),
            ("comes", "changed", ""),
            ("other", "failed", "reference-exists"),
        ]
        assert result.status is Status.CHANGED
        assert result.given() == [(name("there"), A, ""), (name("comes"), B, "")]
        lines = result.lines()
        assert lines[-1] == "1 of 4 unchanged"
        assert f"{name('comes')} in k8s.io  (by ctr images pull, ctr {result.ctr})  changed" in lines
        assert "  repository-not-found: " in "\n".join(lines)

    def test_a_second_run_on_300_names_takes_one_remote_command_and_one_connection(self, stock: Stock) -> None:
        shelves = stock({str(number): A for number in range(300)})
        images = [image(name(number), A) for number in range(300)]
        host = Host(images, answers=here(*images))
        result = pulled(host, *range(300))
        assert {each.status for each in result.images} == {Status.UNCHANGED}
        assert result.lines() == ["300 of 300 unchanged"]
        assert len(host.scripts) == 1  # besides the probe
        assert (len(shelves.asked_for), shelves.closed) == (300, 1)

    def test_of_other_platforms_reads_the_manifests_of_all_in_two_commands(self, stock: Stock) -> None:
        stock(dict.fromkeys("ab", A))
        images, visible = [image(name(each), A) for each in "ab"], Answer(0, f"{A}\n{CONFIG}\n".encode(), "")
        host = Host(images, answers=here(*images, visible=visible))
        assert told(pulled(host, "a", "b", all_platforms=True)) == [("a", "unchanged", ""), ("b", "unchanged", "")]
        assert len(host.scripts) <= 2 and "get-0" in host.steps

    def test_that_is_interrupted_by_the_host_tells_what_was_done(self, stock: Stock) -> None:
        def lost(_: str) -> Answer:
            raise errors.ConnectionLost("gone")

        stock({"a": A, "b": B, "c": A})
        answers = here(image(name("a"), A)) | {"pull": lambda text: lost(text) if name("b") in text else OK}
        with pytest.raises(errors.ConnectionLost) as caught:
            pulled(Host([], answers=answers), "a", "b", "c")
        assert told(caught.value.result) == [("a", "changed", ""), ("b", "skipped", ""), ("c", "skipped", "")]
        assert Outcome.of("n", 1.0, caught.value).lines()[-1] == "2 of 3 skipped"

    def test_a_dry_run_says_for_each_what_would_change(self, stock: Stock) -> None:
        stock({"a": A, "b": B})
        host = Host([image(name("a"), A)], answers=here(image(name("a"), A)), dry_run=True)
        assert told(as_dry_run(pulled(host, "a", "b"))) == [("a", "unchanged", ""), ("b", "would-change", "")]
        assert "pull" not in host.steps

    def test_with_a_digest_has_the_name_that_cri_gives(self) -> None:
        several: Any = pull.parse(ref=[f"{name('a')}@{A}", f"r.example:5000/a@{A}", "b"])
        assert [str(each.reference) for each in several] == [f"r.example:5000/a@{A}", "docker.io/library/b:latest"]


class TestSpace:
    DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 100 {used} {free} 50% /\n"

    def run(self, free: int, *, dry_run: bool, there: str = "") -> Any:
        """Pull two images that share a layer of 4 KiB and have one of 4 KiB each."""
        df = Answer(0, self.DF.format(used=100 - free, free=free).encode(), "")
        answers = here(*(image(name(each), A) for each in "ab"), **{"room": df, "has-0": Answer(0, there.encode(), "")})
        return pulled(Host([], answers=answers, dry_run=dry_run), "a", "b")

    @pytest.fixture(autouse=True)
    def shelves(self, stock: Stock) -> None:
        shelves = stock({"a": A, "b": A})

        def read(path: str, _: str) -> bytes:
            layers = [{"mediaType": "layer", "digest": each, "size": 4096} for each in (C, A if path == "a" else B)]
            return json.dumps({"config": {"digest": CONFIG, "size": 0}, "layers": layers}).encode()

        shelves.read = read  # type: ignore[method-assign]

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_of_an_image_counts_for_the_next_ones(self, *, dry_run: bool) -> None:
        with pytest.raises(errors.SomeFailed) as caught:
            self.run(10, dry_run=dry_run)
        assert told(caught.value.result) == [("a", "changed", ""), ("b", "failed", "disk-full")]
        assert "4.0 KiB are needed, and 2.0 KiB are free" in caught.value.result.images[1].error["message"]

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_is_not_counted_for_what_is_there(self, *, dry_run: bool) -> None:
        assert [status for _, status, _ in told(self.run(10, dry_run=dry_run, there=f"{A}\n"))] == ["changed"] * 2


class TestARegistryThatFails:
    @pytest.mark.parametrize("run", [pulled, pushed])
    @pytest.mark.parametrize(
        ("state", "kind"),
        [
            (RegistryState.REFUSED, "registry-unreachable"),
            (RegistryState.NO_ANSWER, "registry-timeout"),
            (RegistryState.UNKNOWN_CA, "registry-tls"),
            (RegistryState.FAILED, "registry-failed"),
        ],
    )
    def test_is_not_asked_for_300_images(self, stock: Stock, run: Any, state: RegistryState, kind: str) -> None:
        shelves = stock({str(number): state for number in range(300)})
        with pytest.raises(errors.SomeFailed) as caught:
            run(Host([image(name(number), A) for number in range(300)]), *range(300))
        assert {kind for *_, kind in told(caught.value.result)} == {kind}
        assert set(shelves.asked_for) == {"0", "1", "2"}
        assert "failed for other images" in caught.value.result.images[3].error["message"]

    def test_for_a_login_gets_it_once(self, stock: Stock) -> None:
        shelves = stock(dict.fromkeys("abc", RegistryState.UNAUTHORIZED))
        shelves.login = shelves.known_login = ANN
        with pytest.raises(errors.SomeFailed):
            pulled(Host([]), "a", "b", "c")
        assert shelves.asked_for == ["a"]

    def test_for_some_images_alone_is_asked_for_the_others(self, stock: Stock) -> None:
        stopped, denied = RegistryState.NO_ANSWER, RegistryState.DENIED
        shelves = stock(
            {"a": stopped, "b": stopped, "c": A, "d": stopped, "e": None, "f": stopped, "g": denied, "h": A}
        )
        with pytest.raises(errors.SomeFailed):
            pulled(Host([image(name(each), A) for each in "ch"], answers=here()), *"abcdefgh")
        assert shelves.asked_for == list("abcdefgh")

    def test_while_ctr_pulls_is_given_up(self, stock: Stock) -> None:
        stock(dict.fromkeys("abcdef", A))
        down = Answer(1, b"", "ctr: dial tcp 1.2.3.4:5000: connect: connection refused\n")
        host = Host([], answers=here() | {"pull": down})
        with pytest.raises(errors.SomeFailed) as caught:
            pulled(host, *"abcdef")
        assert {kind for *_, kind in told(caught.value.result)} == {"registry-unreachable"}
        assert host.steps.count("pull") == 3


class TestAPush:
    def test_of_one_that_is_there_one_that_is_missing_and_one_that_goes_tells_each(self, stock: Stock) -> None:
        shelves = stock({"there": A, "goes": None, "taken": B})

        def push(_: str) -> Answer:
            shelves.has["goes"] = A
            return OK

        host = Host([image(name(each), A) for each in ("there", "goes", "taken")], answers={"push": push})
        with pytest.raises(errors.SomeFailed, match="2 of 4 images were not pushed") as caught:
            pushed(host, "there", "none", "goes", "taken")
        assert told(caught.value.result) == [
            ("there", "unchanged", ""),
            ("none", "failed", "image-not-found"),
            ("goes", "changed", ""),
            ("taken", "failed", "reference-exists"),
        ]
        assert caught.value.result.images[2].source == name("goes")
        assert host.steps.count("push") == 1

    def test_a_second_run_on_300_names_takes_no_remote_command_and_one_connection(self, stock: Stock) -> None:
        shelves = stock({str(number): A for number in range(300)})
        host = Host([image(name(number), A) for number in range(300)])
        assert {each.status for each in pushed(host, *range(300)).images} == {Status.UNCHANGED}
        assert host.scripts == []  # besides the probe
        assert (len(shelves.asked_for), shelves.closed) == (300, 2)  # inspected; then ctr could have run for long

    def test_reads_the_manifests_of_all_that_is_lacking_in_one_command(self, stock: Stock) -> None:
        shelves = stock(dict.fromkeys("abc"))
        host = Host([image(name(each), A) for each in "abc"], answers={"push": OK}, dry_run=True)
        assert [status for _, status, _ in told(as_dry_run(pushed(host, *"abc")))] == ["would-change"] * 3
        assert len(host.scripts) == 1
        assert shelves.closed <= 2

    def test_that_needs_a_login_inspects_each_again_before_ctr_uses_it(self, stock: Stock) -> None:
        shelves = stock(dict.fromkeys("ab"))  # without a login, the registry says that it has nothing
        shelves.known_login = ANN
        find, hidden = shelves.find, {"a": None, "b": B}

        def hiding(path: str, reference: str) -> str | None:
            return hidden[path] if shelves.login else find(path, reference)

        def push(text: str) -> Answer:
            if "--user ann" not in text:
                return Answer(1, b"", "ctr: unexpected status: 401 Unauthorized\n")
            hidden["a"] = A
            return OK

        shelves.find = hiding  # type: ignore[method-assign]
        host = Host([image(name(each), A) for each in "ab"], answers={"push": push})
        with pytest.raises(errors.SomeFailed) as caught:
            pushed(host, "a", "b")
        assert told(caught.value.result) == [("a", "changed", ""), ("b", "failed", "reference-exists")]
        users = ["--user ann" in script.steps["push"] for script in host.scripts if "push" in script.steps]
        assert users == [False, True]  # and none for b


class TestAPushFromSeveralHosts:
    def test_refuses_only_the_name_that_would_get_two_digests(self, stock: Stock) -> None:
        stock({"same": A, "differs": None})
        hosts = [Host([image(name("same"), A), image(name("differs"), digest)]) for digest in (A, OTHER)]
        answers = ScriptedFleet(*hosts).push(name("same"), name("differs"))
        assert {type(answer) for answer in answers} == {errors.SomeFailed}
        for answer in answers:
            assert told(answer.result) == [("same", "unchanged", ""), ("differs", "failed", "drift")]
            assert f"{A} on 0\n{OTHER} on 1" in answer.result.images[1].error["said"]
        assert not any("push" in host.steps for host in hosts)

    def test_verifies_every_image_once_more_when_all_are_done(self, stock: Stock) -> None:
        shelves = stock({"a": A, "b": A})
        hosts = [Host([image(name(each), A) for each in "ab"]) for _ in range(2)]
        find = shelves.find

        def moving(path: str, reference: str) -> str | None:
            found = find(path, reference)
            # Each host asks for each image before, at its turn, and after.
            return B if path == "b" and len(shelves.asked_for) > 8 else found

        shelves.find = moving  # type: ignore[method-assign]
        answers = ScriptedFleet(*hosts).push(name("a"), name("b"))
        expected = [("a", "unchanged", ""), ("b", "failed", "verify-failed")]
        assert [told(answer.result) for answer in answers] == [expected] * 2
