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
# A line for each new name: the name, the old name, the hosts with commas around them, how many digests they have.
read_json "$work/retag" '[outcomes | .host as $host | images | select(.status != "failed") + {host: $host}]
    | group_by(.reference)[] | [.[0].reference, .[0].source, ",\(map(.host) | join(",")),", (map(.source_digest) | unique | length)]
    | @tsv' >"$work/names"
[ -s "$work/names" ] || stop 1 "no host that answered has an image of $from that could be named"

# $work/told has what came of an image so far: its name, `done`, `final` (no host can push it) or `failed`, and words.
tab=$(printf '\t')
awk -F "$tab" -v OFS="$tab" '
    $4 > 1 { print $1, "final", "failed: its hosts have " $4 " digests under the old name"; next }
    { print $1, "failed", "failed: no host that has it reaches the registry" }' "$work/names" >"$work/told"

# push_from HOST: the host pushes its images that no host has pushed yet, all in one run. Such a run ends at the first
# failure; another one goes on behind it, unless the host does not reach the registry at all.
push_from() {
    awk -F "$tab" -v host="$1" 'FILENAME == ARGV[1] { if ($2 != "failed") settled[$1]; next }
        index($3, "," host ",") && !($1 in settled)' "$work/told" "$work/names" >"$work/todo"
    while [ -s "$work/todo" ]; do
        set -- "$1"
        while IFS=$tab read -r new old _ <&3; do
            set -- "$@" push --json --ref "$old" --as "$new" ${dry:+"$dry"}
        done 3<"$work/todo"
        step "pushing $(grep -c . "$work/todo") of $(grep -c . "$work/names") images from $1"
        ask "$work/push" -H "$@"
        complain "$work/push"
        read_json "$work/push" '.commands[] | .arguments.as as $name | .outcomes[0] | select(.status != "skipped")
            | ([images][0] // {}) as $image | (.error.kind // $image.verified) as $word
            | if .error then [$name, if $word == "reference-exists" then "final" else "failed" end,
                  "failed: \($word) on \(.host)"]
              elif $word == "digest" then [$name, "done", "\(.status) by \(.host): \($image.digest)"]
              else [$name, "final", "failed: \($word) by \(.host): \($image.notes | join("; "))"] end
            | map(safe) | @tsv' >"$work/pushed"
        cat "$work/pushed" >>"$work/told"
        if grep -Eq "${tab}failed: (host|registry)-(unreachable|unresolved|timeout|tls) " "$work/pushed"; then return; fi
        awk -F "$tab" 'FILENAME == ARGV[1] { tried[$1]; next } !($1 in tried)' "$work/pushed" "$work/todo" >"$work/rest"
        mv "$work/rest" "$work/todo"
    done
}

step "2/3 pushing the images to $to"
for host in $(echo "$hosts" | tr , ' '); do
    push_from "$host"
done
awk -F "$tab" '{ last[$1] = $2 } END { for (name in last) if (last[name] != "done") exit 1 }' "$work/told" || worst 1

if [ -z "$dry" ]; then
    step "3/3 verifying the new names on $hosts"
    ask "$work/images" -H "$hosts" images --match "$to/*"
    worst "$code"
    complain "$work/images"
    # What retag gave on hosts that answered both times, and what they have now.
    read_json "$work/retag" '
        ([$now[0] | outcomes | select(.result) | {key: .host, value: [images]}] | from_entries) as $now
        | outcomes | .host as $host | select($now[$host]) | images | select(.status != "failed") as $named
        | [$now[$host][] | select(.reference == $named.reference)][0] as $has
        | if $has == null then "\($host): \($named.reference) is gone"
          elif $has.digest != $named.digest then "\($host): \($named.reference) has another digest by now, \($has.digest)"
          elif $has.complete then empty
          else "\($host): \($named.reference) is \($has.check); try: fab -H \($host) deliver --ref \($named.reference)" end
        | safe' --slurpfile now "$work/images" >"$work/wrong"
    if [ -s "$work/wrong" ]; then
        cat "$work/wrong" >&2
        worst 1
    fi
fi
awk -F "$tab" 'FILENAME == ARGV[1] { last[$1] = $3; next }
    { print $1 "  " last[$1] "  " substr($3, 2, length($3) - 2) }' "$work/told" "$work/names"
exit "$status"
