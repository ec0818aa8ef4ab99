"""`python -m lab`: the rehearsal fleet from a terminal."""

from __future__ import annotations

import argparse
import os
import sys

from lab import rehearsal
from lab.fleet import Fleet, LabError, Node


def main(argv: list[str] | None = None) -> int:
    """Run one command line; return the exit status. Status 2 means that the lab cannot run it on this machine."""
    try:
        return _run(Fleet.chosen(), _parser().parse_args(argv))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(fleet: Fleet, options: argparse.Namespace) -> int:
    """Run one command; return its exit status; raise LabError."""
    match options.command:
        case "up":
            rehearsal.up(fleet, options.extra)
            return 0
        case "down":
            fleets_of_tests = fleet.state.parent.glob(f"{fleet.state.name}-*")
            for state in {fleet.state, *fleets_of_tests}:
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
    up = commands.add_parser("up", help="start the nodes, services and registries that do not run yet")
    up.add_argument("--extra", type=int, default=0, metavar="N", help="start N more nodes like node3")
    commands.add_parser("down", help="stop the fleet and remove everything except the downloaded packages")
    commands.add_parser("status", help="show the nodes that are up")
    shell = commands.add_parser("shell", help="open a root shell on a node")
    shell.add_argument("node")
    run = commands.add_parser("exec", help="run a command on a node: exec NODE -- COMMAND…")
    run.add_argument("node")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def _status(fleet: Fleet) -> int:
    """Print one line for each node; return 0 if a node is up, else 1."""
    for node in fleet.nodes.values():
        running = [name for name, up in node.services().items() if up]
        print(f"{node.name}  {node.address}:{node.port}  ctr {node.version}  {' '.join(running)}")
    if not fleet.nodes:
        print("The rehearsal fleet is down.")
    return 0 if fleet.nodes else 1


def _node(fleet: Fleet, name: str) -> Node:
    """Return a node that is up; raise LabError."""
    if not (node := fleet.nodes.get(name)):
        raise LabError(f"there is no {name}; these nodes are up: {', '.join(fleet.nodes) or 'none'}")
    return node


def _become(node: Node, command: list[str]) -> int:
    """Replace this process with a command inside the node."""
    argv = node.argv(command)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    sys.exit(main())
