"""Images from one source to all hosts of a fleet, as ``copy`` and ``load`` do it."""

from __future__ import annotations

from collections.abc import Sequence

from ctr_ferry.errors import FerryError
from ctr_ferry.report.outcome import Result
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy_request import CopyRequest
from ctr_ferry.transfer.fan_out import FanOut, Source
from ctr_ferry.transfer.host_copy import HostCopy


def copy_images(fleet: Fleet, copy_request: CopyRequest, source: Source) -> dict[str, Result | FerryError]:
    """Copies images to every host of the fleet, in batches of at most ``fleet.workers`` (fabric.yaml) hosts.

    A blob leaves the source once for each batch that needs it.

    Returns:
        By host a CopyResult, or why there is none.
    """
    return dict(fleet.together(lambda hosts: _Batch(hosts, copy_request, source)))


class _Batch:
    """Hosts that are served by one fan-out; what `Fleet.together` asks for."""

    def __init__(self, hosts: Sequence[str], copy_request: CopyRequest, source: Source) -> None:
        self._copy_request, self._source = copy_request, source
        self._fan_out = FanOut(hosts, source)

    def work(self, host: Host) -> Result:
        """Does all that is to be done on one host."""
        return HostCopy(host, self._copy_request, self._source, self._fan_out).run()

    def gone(self, host: str) -> None:
        """Tells the fan-out not to wait for a host."""
        self._fan_out.gone(host)
