#!/bin/sh
# before-upgrade.sh: every image that the new version needs is on every node, or the exit status is 1.
#
#   before-upgrade.sh -H NODES --set FILE [--archive FILE] [--from HOST] [--via auto|registry|ssh] [--dry-run]
#
# What it does
#   1. fab deliver: brings each node the images that it lacks. Nothing moves that a node has already.
#   2. fab check: does every node have every image, complete, unpacked, with one digest?
# It prints what came over which route, and what is missing on which node. Upgrade only after exit status 0.
#
# It needs: jq; a host of the inventory, or an archive, that has the images.
#
# It takes
#   -H NODES        the nodes, as `fab -H` takes them
#   --set FILE      the images, as `fab deliver --set` takes them; - is stdin
#   --archive FILE  an archive that has the images
#   --from HOST     who has the images (default: whoever of the inventory has them)
#   --via ROUTE     auto (default), registry, or ssh
#   --dry-run       brings nothing; tells what is missing, and how it would come
#
# It may be interrupted and run again at any time: what arrived stays, and only the rest is brought.
#
# Exit status: 0 every image is on every node; 1 some image is missing on some node, a node that was unreachable
# included; 2 nothing was started; 130 interrupted, 143 terminated.

set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

hosts='' set='' archive='' from='' via='' dry=''
while [ $# -gt 0 ]; do
    case $1 in
    -H) value "$@" && hosts=$2 && shift ;;
    --set) value "$@" && set=$2 && shift ;;
    --archive) value "$@" && archive=$2 && shift ;;
    --from) value "$@" && from=$2 && shift ;;
    --via) value "$@" && via=$2 && shift ;;
    --dry-run) dry=$1 ;;
    --help) help ;;
    *) misuse "$1 is unknown" ;;
    esac
    shift
done
needed -H "$hosts" --set "$set"
begin
if [ "$set" = - ]; then # both steps read the set
    set=$work/stdin
    cat >"$set"
fi
hosts=$(hosts_of "$hosts")

step "1/2 delivering the images of ${set##*/} to $hosts"
ask "$work/deliver" -H "$hosts" deliver --set "$set" ${archive:+--archive "$archive"} ${from:+--from "$from"} \
    ${via:+--via "$via"} ${dry:+"$dry"}
complain "$work/deliver"
delivered "$work/deliver"

step "2/2 checking the images on $hosts"
ask "$work/check" -H "$hosts" check --set "$set"
if [ "$code" = 0 ]; then
    say "every image is on $hosts"
    exit 0
fi
complain "$work/check"
stop 1 "do not upgrade: not every image is on every node"
