"""``apply``: carries out a plan of ``deliver``, and refuses each host that is not as it was when it was planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.errors import FerryError, NotStarted, UsageError
from ctr_ferry.report.outcome import Answer, Table
from ctr_ferry.run.command import fleet_wide

if TYPE_CHECKING:
    from ctr_ferry.delivery.plan_file import DeliveryPlan
    from ctr_ferry.delivery.request import DeliverRequest
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.target import Target


@dataclass(frozen=True, slots=True)
class Request:
    """A plan, and what it was asked for."""

    file: str
    plan: DeliveryPlan
    delivery: DeliverRequest


def parse(*, plan: str | None = None) -> Request:
    """Reads the plan, and the archive if that is the source; raises UsageError if one of them is wrong."""
    from ctr_ferry.delivery import plan_file

    if not plan:
        raise UsageError(
            "apply needs --plan FILE", hint="make one: fab -H all deliver --ref r.example/app:1 --plan app.plan"
        )
    found = plan_file.read(plan)
    delivery = found.request_for(plan)
    if not found.hosts:
        again = delivery.command("all", (), "--plan", plan)
        raise UsageError(
            f"{plan} has no host: none could be planned for", hint=f"make a new plan, and read its errors: {again}"
        )
    return Request(plan, found, delivery)


def hosts(request: Request) -> Sequence[str]:
    """The hosts that the plan is for."""
    return list(request.plan.hosts)


def before(request: Request, targets: Sequence[Target]) -> None:
    """Refuses to start if the plan has nothing for any of the hosts."""
    if not {target.name for target in targets} & request.plan.hosts.keys():
        raise UsageError(
            f"{request.file} is no plan for these hosts; nothing was started",
            detail=f"it is for {', '.join(request.plan.hosts) or 'no host'}",
            hint=f"leave -H out: fab apply --plan {request.file}",
        )


def tabulate(answers: Mapping[str, Answer]) -> Table:
    """As for ``deliver``."""
    from ctr_ferry.delivery import results

    return results.tabulate(answers)


@fleet_wide(
    parse,
    if_cut="run the same apply again: it sends a host only what is not there yet",
    before=before,
    own_hosts=hosts,
    tabulate=tabulate,
    help={"plan": "The file that `deliver --plan FILE` wrote; -H may narrow its hosts."},
)
def apply(fleet: Fleet, request: Request) -> dict[str, Answer]:
    """Carry out a plan of deliver, exactly; a host that has changed since is refused (--dry-run shows the plan)."""
    from ctr_ferry.delivery.delivery import Delivery
    from ctr_ferry.delivery.inspection import inspect

    unplanned = NotStarted(f"{request.file} has nothing for this host", hint="deliver to it without that plan")
    try:
        found = inspect(fleet, request.delivery)
    except UsageError:
        raise
    except FerryError as error:
        return fleet.fail(error)
    delivery = Delivery(fleet, found, request.plan.decisions(found), request.plan)
    answers = delivery.foretell() if fleet.dry_run else delivery.run()
    return answers | {host: unplanned for host in answers if host not in request.plan.hosts}
