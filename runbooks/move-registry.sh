#!/bin/sh
# move-registry.sh: gives every image of a dead registry today's name on all hosts, pushes it there, and verifies both.
#
#   move-registry.sh -H HOSTS --from DEAD --to TODAY [--dry-run]
#
# What it does
#   1. fab retag: each image whose name begins with DEAD gets the same name on TODAY, on each host that has it.
#   2. fab push: for each image, one host that has it pushes it. If that host cannot, the next one does. A name that
#      has several digests on the hosts, or another one in the registry, is not pushed.
#   3. fab images: every host has every new name, complete and with the digest of the old one.
# It prints a line for each image: the name, what the registry has, and the hosts.
#
# It needs: jq; if the registry wants a login or a CA of its own, ctr_registries in the inventory.
#
# It takes
#   -H HOSTS     the hosts, as `fab -H` takes them
#   --from DEAD  the old registry, such as 172.1.1.34:5000
#   --to TODAY   the registry that takes its place, such as docker-registry.i.demo
#   --dry-run    shows what would be done, and changes nothing
#
# The old names stay. It may be interrupted and run again at any time: what is done already is found unchanged.
#
# Exit status: 0 every image has its new name, verified on its hosts and in the registry; 1 some image has not, or no
# host has an image of DEAD; 2 nothing was started; 4 some host was unreachable, all others are done;
# 130 interrupted, 143 terminated.

set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

hosts='' from='' to='' dry=''
while [ $# -gt 0 ]; do
    case $1 in
    -H) value "$@" && hosts=$2 && shift ;;
    --from) value "$@" && from=$2 && shift ;;
    --to) value "$@" && to=$2 && shift ;;
    --dry-run) dry=$1 ;;
    --help) help ;;
    *) misuse "$1 is unknown" ;;
    esac
    shift
done
needed -H "$hosts" --from "$from" --to "$to"
begin
hosts=$(hosts_of "$hosts")

step "1/3 naming the images of $from on $hosts"
ask "$work/retag" -H "$hosts" retag --to-registry "$to" --match "$from/*" ${dry:+"$dry"}
worst "$code"
complain "$work/retag"
# A line for each new name: the name, the old name, how many digests it has, the hosts.
read_json "$work/retag" '[outcomes | .host as $host | images | select(.status != "failed") + {host: $host}]
    | group_by(.dst)[] | [.[0].dst, .[0].src, (map(.src_digest) | unique | length), (map(.host) | join(","))]
    | @tsv' >"$work/names"
[ -s "$work/names" ] || stop 1 "no host that answered has an image of $from that could be named"

# push_from HOSTS OLD NEW: one host after the other tries to push, until one has. $pushed tells what came of it.
# A host that cannot reach the registry is not asked again for the next image.
push_from() {
    pushed="failed: no host that has it reaches $to"
    : >"$work/push"
    for host in $(echo "$1" | tr , ' '); do
        case ,$away, in *",$host,"*) continue ;; esac
        step "pushing $3 from $host"
        ask "$work/push" -H "$host" push --ref "$2" --as "$3" ${dry:+"$dry"}
        if [ "$code" = 0 ]; then
            pushed=$(read_json "$work/push" 'outcomes | "\(.status) by \(.host): \(.result
                | if .verified == "digest" then .digest else "failed: \(.verified): \(.reason | safe)" end)"')
            break
        fi
        kind=$(read_json "$work/push" '[troubles.kind][0]')
        pushed="failed: $kind on $host"
        case $kind in
        reference-exists) break ;; # the registry has another digest, whichever host asks
        host-* | registry-unresolved | registry-unreachable | registry-timeout | registry-tls) away=$away,$host ;;
        esac
    done
    case $pushed in *failed:*) complain "$work/push" && worst 1 ;; esac
}

step "2/3 pushing $(grep -c '' "$work/names") images to $to"
away=''
while IFS='	' read -r new old digests on <&3; do
    if [ "$digests" = 1 ]; then
        push_from "$on" "$old" "$new"
    else
        pushed="failed: $digests digests under this name; try: fab -H $on check --ref $old"
        worst 1
    fi
    printf '%s  %s  %s\n' "$new" "$pushed" "$on" >>"$work/told"
done 3<"$work/names"

if [ -z "$dry" ]; then
    step "3/3 verifying the new names on $hosts"
    ask "$work/images" -H "$hosts" images --match "$to/*"
    worst "$code"
    complain "$work/images"
    # What retag gave on hosts that answered both times, and what they have now.
    read_json "$work/retag" '([$now[0] | outcomes | select(.result) | {key: .host, value: [images]}] | from_entries) as $now
        | outcomes | .host as $host | select($now[$host]) | images | select(.status != "failed") as $named
        | [$now[$host][] | select(.name == $named.dst)][0] as $has
        | if $has == null then "\($host): \($named.dst) is gone"
          elif $has.digest != $named.digest then "\($host): \($named.dst) has another digest by now, \($has.digest)"
          elif $has.complete then empty
          else "\($host): \($named.dst) is \($has.check); try: fab -H \($host) deliver --ref \($named.dst)" end | safe' --slurpfile now "$work/images" >"$work/wrong"
    if [ -s "$work/wrong" ]; then
        cat "$work/wrong" >&2
        worst 1
    fi
fi
cat "$work/told"
exit "$status"
