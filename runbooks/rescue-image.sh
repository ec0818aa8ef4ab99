#!/bin/sh
# rescue-image.sh: an image that some host has under a dead name is there under today's name on all hosts.
#
#   rescue-image.sh -H HOSTS --old REF --new REF [--from HOST] [--via auto|registry|ssh] [--dry-run]
#
# What it does
#   1. fab find: who has the image under the old name?
#   2. fab deliver: gives it the new name there, and brings it to all hosts: by its name where a host has it already,
#      through the registry of the new name where that answers, and over SSH everywhere else.
#   3. fab check: every host has the new name, with one digest, complete and unpacked.
# It prints what came over which route, and how much was moved.
#
# It needs: jq; if the registry wants a login or a CA of its own, ctr_registries in the inventory.
#
# It takes
#   -H HOSTS     the hosts that need the image, as `fab -H` takes them
#   --old REF    the whole old name, as `fab find` shows it
#   --new REF    the new name
#   --from HOST  who has the image (default: whoever of the inventory has it)
#   --via ROUTE  auto (default), registry, or ssh
#   --dry-run    shows the routes and how much would move, and changes nothing
#
# The old name stays. It may be interrupted and run again at any time: what is done already is found unchanged.
#
# Exit status: 0 every host has the image; 1 some host has not, or nobody has the old name; 2 nothing was started;
# 4 some host was unreachable, all others are done; 130 interrupted, 143 terminated.

set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

hosts='' old='' new='' from=any via=auto dry=''
while [ $# -gt 0 ]; do
    case $1 in
    -H) value "$@" && hosts=$2 && shift ;;
    --old) value "$@" && old=$2 && shift ;;
    --new) value "$@" && new=$2 && shift ;;
    --from) value "$@" && from=$2 && shift ;;
    --via) value "$@" && via=$2 && shift ;;
    --dry-run) dry=$1 ;;
    --help) help ;;
    *) misuse "$1 is unknown" ;;
    esac
    shift
done
needed -H "$hosts" --old "$old" --new "$new"
begin
hosts=$(hosts_of "$hosts")

if [ "$from" = any ]; then where=all; else where=$from; fi
step "1/3 looking for $old on $where"
ask "$work/find" -H "$where" find --match "$old"
found=$(read_json "$work/find" '[outcomes | select([images.places[]] != []) | .host] | join(", ")')
[ -n "$found" ] || { complain "$work/find" && stop 1 "no host that answered has $old"; }
step "$old is on $found"

step "2/3 delivering $new to $hosts"
ask "$work/deliver" -H "$hosts" deliver --src "$old" --dst "$new" --from "$from" --via "$via" ${dry:+"$dry"}
worst "$code"
complain "$work/deliver"
delivered "$work/deliver"

if [ -z "$dry" ]; then
    step "3/3 checking $new on $hosts"
    ask "$work/check" -H "$hosts" check --ref "$new"
    worst "$code"
    complain "$work/check"
    say "$new is $(read_json "$work/check" '[outcomes | images.digest | select(. != "")] | unique | join(", ")')"
fi
exit "$status"
