"""`python -m lab`: the rehearsal fleet from a terminal."""

from __future__ import annotations

import argparse
import os
import sys
import time

from lab.fleet import Fleet, LabError, Node


def main(argv: list[str] | None = None) -> int:
    """Obey one command line; return the exit status (2: the lab cannot do it here)."""
    try:
        return _obey(Fleet(), _parser().parse_args(argv))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _obey(fleet: Fleet, options: argparse.Namespace) -> int:
    """Carry out one command; return its exit status; raise LabError."""
    match options.command:
        case "up":
            return _up(fleet, options.extra)
        case "down":
            for state in {fleet.state, *fleet.state.parent.glob(f"{fleet.state.name}-*")}:  # and those of tests
                Fleet(state, cache=fleet.cache).down()
            return 0
        case "status":
            return _status(fleet)
        case "shell":
            return _become(_node(fleet, options.node), ["bash", "-l"])
        case _:
            words = options.words[1:] if options.words[:1] == ["--"] else options.words
            return _become(_node(fleet, options.node), words or ["bash", "-l"])


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start the fleet, or what of it is not running")
    up.add_argument("--extra", type=int, default=0, metavar="N", help="N more nodes like node3")
    commands.add_parser("down", help="stop the fleet and remove all of it but the downloaded packages")
    commands.add_parser("status", help="show the nodes that are up")
    shell = commands.add_parser("shell", help="open a root shell on a node")
    shell.add_argument("node")
    run = commands.add_parser("exec", help="run a command on a node: exec NODE -- COMMAND…")
    run.add_argument("node")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def _up(fleet: Fleet, extra: int) -> int:
    """Bring the fleet up and say how it went; return the exit status."""
    began = time.monotonic()
    if not (fleet.cache / "trees").exists():
        print("Fetching Debian packages for the nodes, this once…", file=sys.stderr)
    fleet.up(extra)
    if fleet.missing:
        print(f"The fleet is smaller than it could be: {'; '.join(fleet.missing)}", file=sys.stderr)
    print(f"{len(fleet.nodes)} nodes are up ({time.monotonic() - began:.1f} s): {', '.join(fleet.nodes)}")
    return 0


def _status(fleet: Fleet) -> int:
    """Show a line per node; return 0 when some node is up, else 1."""
    for node in fleet.nodes.values():
        running = [name for name, up in node.services().items() if up]
        print(f"{node.name}  {node.address}:{node.port}  ctr {node.version}  {' '.join(running)}")
    if not fleet.nodes:
        print("The rehearsal fleet is down.")
    return 0 if fleet.nodes else 1


def _node(fleet: Fleet, name: str) -> Node:
    """Return a node that is up; raise LabError."""
    if not (node := fleet.nodes.get(name)):
        raise LabError(f"there is no {name}; up are: {', '.join(fleet.nodes) or 'none'}")
    return node


def _become(node: Node, command: list[str]) -> int:
    """Become a command inside the node."""
    argv = node.argv(command)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    sys.exit(main())
