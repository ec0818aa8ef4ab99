"""`fab registry` reports what each node sees of each registry."""

from __future__ import annotations

from typing import Any

from registry_scene import RegistryScene

from lab.registries import DEMO_NODES


def test_every_node_reports_what_it_sees_of_every_registry(scene: RegistryScene) -> None:
    all_ = scene.registries
    # That nobody waits for the silent one for ever, the doctor's tests have.
    given = {name: entry for name, entry in all_.settings().items() if name != all_.silent.name}
    run = scene.run(scene.nodes, "registry", "--json", inventory=scene.inventory(ctr_registries=given))
    assert run.exit == 1
    ok, fail = ("ok", None), ("fail", None)
    expected: dict[str, tuple[str, bool | None]] = {
        all_.http.name: ok,
        all_.tls.name: ok,
        all_.basic.name: ("ok", True),
        all_.token.name: ("ok", True),
        all_.slow.name: ("ok", True),
        all_.flaky.name: ok,
        all_.expired.name: fail,
        all_.wrong.name: fail,
        all_.absent.name: fail,
        all_.nowhere.name: fail,
        all_.hidden.name: fail,
    }
    for node in scene.nodes:
        seen = {each["registry"]: each for each in run.outcomes[node]["result"]["registries"]}
        demo = {all_.demo.name: ok if node in DEMO_NODES else fail}
        assert {name: (each["status"], each["login"]) for name, each in seen.items()} == expected | demo
        assert {each["auth"] for each in seen.values() if each["login"]} == {"Basic", "Bearer"}
        assert all(bool(each["hint"]) == (each["status"] == "fail") for each in seen.values())
        assert all((each["seconds"] or 0) > 0 for each in seen.values() if each["status"] == "ok")
        assert "has expired" in seen[all_.expired.name]["message"]
        assert "for another name" in seen[all_.wrong.name]["message"]
        assert "does not resolve" in seen[all_.nowhere.name]["message"]
        assert "refuses the connection" in seen[all_.absent.name]["message"]
    assert all_.secret not in run.out + run.err


def test_a_login_that_does_not_work_and_an_unknown_ca_are_found(scene: RegistryScene) -> None:
    registries = scene.registries
    given: dict[str, dict[str, Any]] = {
        registries.basic.name: registries.basic.settings(),
        registries.token.name: registries.token.settings(),
        registries.tls.name: registries.tls.settings(ca_file=None),
    }
    inventory = scene.inventory(ctr_registries=given, ctr_proxy=None)
    run = scene.run(scene.nodes, "registry", "--json", inventory=inventory, LAB_PASSWORD_PUSHER="wr0ng-w0rd")
    assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "registry-error"))
    for node in scene.nodes:
        seen = {each["registry"]: each for each in run.outcomes[node]["result"]["registries"]}
        assert [seen[name]["login"] for name in given] == [False, False, None]
        assert "signed by an unknown CA" in seen[registries.tls.name]["message"]
    assert "wr0ng-w0rd" not in run.out + run.err


def test_the_proxy_is_the_way_where_the_inventory_says_so(scene: RegistryScene) -> None:
    hidden = scene.registries.hidden
    inventory = scene.inventory(ctr_proxy=scene.registries.proxy)
    run = scene.run(scene.nodes, "registry", "--json", "--name", hidden.name, inventory=inventory)
    assert (run.exit, set(run.statuses.values())) == (0, {"ok"}), run.out
