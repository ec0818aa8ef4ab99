#!/bin/sh
# new-node.sh: a fresh node gets the images that the hosts of its group run today.
#
#   new-node.sh -H NODES [--like HOSTS] [--from HOST] [--via auto|registry|ssh] [--dry-run]
#
# What it does
#   1. fab doctor: is each new node ready? What a registry lacks does not matter: images also come over SSH.
#   2. fab needs: which images do the containers of the group use, the sandbox image included?
#   3. fab deliver: brings these images to the new nodes.
#   4. fab check: every new node has every image, complete and unpacked.
# It prints what came over which route, and how much was moved.
#
# It needs: jq; containerd running on the new nodes.
#
# It takes
#   -H NODES      the new nodes, as `fab -H` takes them
#   --like HOSTS  whose images they get (default: the group that the inventory names last for the first new node)
#   --from HOST   who has the images (default: whoever of the inventory has them)
#   --via ROUTE   auto (default), registry, or ssh
#   --dry-run     shows the images, the routes and how much would move, and changes nothing
#
# It may be interrupted and run again at any time: what arrived stays, and only the rest is brought.
#
# Exit status: 0 each new node has all images of its group; 1 some image is missing, or a new node is not ready;
# 2 nothing was started; 4 some host was unreachable, so that images that only this host runs are not known, or a new
# node has got nothing; 130 interrupted, 143 terminated.

set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

nodes='' like='' from=any via=auto dry=''
while [ $# -gt 0 ]; do
    case $1 in
    -H) value "$@" && nodes=$2 && shift ;;
    --like) value "$@" && like=$2 && shift ;;
    --from) value "$@" && from=$2 && shift ;;
    --via) value "$@" && via=$2 && shift ;;
    --dry-run) dry=$1 ;;
    --help) help ;;
    *) misuse "$1 is unknown" ;;
    esac
    shift
done
needed -H "$nodes"
begin
nodes=$(hosts_of "$nodes")
if [ -z "$like" ]; then
    like=$(read_json "$work/hosts" '(.commands[-1].result.hosts[0].groups - ["ungrouped"])[-1] // ""')
    [ -n "$like" ] || misuse "the inventory has no group for $nodes: --like is missing"
fi
# The hosts of the group without the new nodes themselves.
hosts_of "$like" >/dev/null
group=$(read_json "$work/hosts" '($nodes | split(",")) as $nodes
    | [.commands[-1].result.hosts[].host | select(. as $host | $nodes | index([$host]) | not)] | join(",")' \
    --arg nodes "$nodes")
[ -n "$group" ] || stop 2 "$like has no host besides $nodes"

step "1/4 asking for the health of $nodes"
ask "$work/doctor" -H "$nodes" doctor
ill=$(read_json "$work/doctor" '[outcomes | .host as $host
    | (.result.findings? // [])[] | select(.status == "fail" and (.check | startswith("registry ") | not))
    | "\($host): \(.check): \(.message); try: \(.hint)" | safe] | join("\n")')
[ -z "$ill" ] || stop 1 "$ill"

step "2/4 asking what runs on $group"
ask "$work/needs" -H "$group" needs --out "$work/set"
worst "$code"
complain "$work/needs"
[ -e "$work/set" ] || stop "$status" "it is not known what $group runs"
[ -z "$dry" ] || grep -v '^#' "$work/set"

step "3/4 delivering the images of $group to $nodes"
ask "$work/deliver" -H "$nodes" deliver --set "$work/set" --from "$from" --via "$via" ${dry:+"$dry"}
worst "$code"
complain "$work/deliver"
delivered "$work/deliver"

if [ -z "$dry" ]; then
    step "4/4 checking the images on $nodes"
    ask "$work/check" -H "$nodes" check --set "$work/set"
    worst "$code"
    complain "$work/check"
fi
exit "$status"
