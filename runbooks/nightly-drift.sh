#!/bin/sh
# nightly-drift.sh: tells what has changed on the hosts since the last run, and nothing if nothing has.
#
#   nightly-drift.sh -H HOSTS --set FILE --state FILE [--mail ADDRESS] [--dry-run]
#
# What it does
#   1. fab check: does every host have every image of the set, complete, unpacked, with one digest?
#   2. fab doctor: is every host well?
#   3. It compares what it found with the state file, and prints what is new (+) and what is gone (-). With --mail, it
#      mails these lines and does not print them. If nothing has changed, it does neither.
#   4. It replaces the state file.
#
# It needs: jq; with --mail, a program `mail`.
#
# It takes
#   -H HOSTS         the hosts, as `fab -H` takes them
#   --set FILE       the images, as `fab check --set` takes them
#   --state FILE     what the last run found; the first run makes it
#   --mail ADDRESS   where to send what has changed
#   --dry-run        prints what has changed; mails nothing, and leaves the state file as it is
#
# For cron, it is silent: its steps are shown only if stderr is a terminal. It may be interrupted and run again: the
# state file is replaced last, so that no change is lost. What was found on a host stays while the host is unreachable.
#
# Exit status: 0 all hosts are well, 1 some host drifts or is ill (changed or not), or the mail was not sent,
# 2 nothing was started, 4 some host was unreachable, 130 interrupted, 143 terminated.

set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

hosts='' set='' state='' mail='' dry=''
while [ $# -gt 0 ]; do
    case $1 in
    -H) value "$@" && hosts=$2 && shift ;;
    --set) value "$@" && set=$2 && shift ;;
    --state) value "$@" && state=$2 && shift ;;
    --mail) value "$@" && mail=$2 && shift ;;
    --dry-run) dry=$1 ;;
    --help) help ;;
    *) misuse "$1 is unknown" ;;
    esac
    shift
done
needed -H "$hosts" --set "$set" --state "$state"
[ -t 2 ] || quiet=yes
begin
hosts=$(hosts_of "$hosts")

# A line of findings is "HOST: FINDING", a tab, and details that may differ every night, such as the free space.
step "1/3 checking the images of $set on $hosts"
ask "$work/check" -H "$hosts" check --set "$set"
worst "$code"
read_json "$work/check" 'outcomes | .host as $host
    | if .status == "unreachable" then "\($host): unreachable\t\(.error.message | safe)"
      else [images.error? // empty] as $each | (if $each == [] then .error // empty else $each[] end)
        | "\($host): \(.kind): \(.message | safe)\t\(.hint | safe)"
      end' >"$work/found"

step "2/3 asking for the health of $hosts"
ask "$work/doctor" -H "$hosts" doctor
worst "$code"
read_json "$work/doctor" 'outcomes | .host as $host
    | if .status == "unreachable" then "\($host): unreachable\t\(.error.message | safe)"
      elif .result then .result.findings[] | select(.status != "ok")
        | "\($host): doctor \(.status): \(.check | safe)\t\(.message | safe); \(.hint | safe)"
      else "\($host): \(.error.kind): \(.error.message | safe)\t\(.error.hint | safe)"
      end' >>"$work/found"

step "3/3 comparing with $state"
export LC_ALL=C # sort and comm must agree on the order
if [ -e "$state" ]; then sort -u "$state" >"$work/old"; else : >"$work/old"; fi
cut -f 1 "$work/found" | sort -u >"$work/new"
sed -n 's/: unreachable$//p' "$work/new" >"$work/away"
awk -F ': ' 'FILENAME == ARGV[1] { away[$1]; next } $1 in away' "$work/away" "$work/old" >>"$work/new"
sort -u -o "$work/new" "$work/new"
comm -13 "$work/old" "$work/new" >"$work/more"
{
    awk -F '\t' 'FILENAME == ARGV[1] { more[$1]; next } $1 in more { print "+ " $1 " (" $2 ")" }' \
        "$work/more" "$work/found" | sort -u
    comm -23 "$work/old" "$work/new" | sed 's/^/- /'
} >"$work/changes"

if [ -s "$work/changes" ]; then
    if [ -n "$mail" ] && [ -z "$dry" ]; then
        mail -s "$runbook: changes on $hosts" "$mail" <"$work/changes" || stop 1 "the mail was not sent; try: run it again"
    else
        cat "$work/changes"
    fi
fi
if [ -z "$dry" ]; then
    cp "$work/new" "$state.part"
    mv "$state.part" "$state"
fi
exit "$status"
