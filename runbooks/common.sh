# shellcheck shell=sh
# common.sh: what the runbooks share. Each runbook reads this file, so copy it along. It is no runbook itself.
#
# CTR_FERRY names the folder of ctr-ferry, if it is not the one above the runbooks. `fab` is that of its .venv, which is
# `ctr-ferry` where a bundle was installed, else the first one in PATH.

runbook=${0##*/}
CTR_FERRY=${CTR_FERRY:-$(dirname "$0")/..}
fab=$CTR_FERRY/.venv/bin/ctr-ferry
[ -x "$fab" ] || fab=$CTR_FERRY/.venv/bin/fab
[ -x "$fab" ] || fab=fab
status=0 # the exit status of the runbook, as `worst` collects it
quiet= # not empty: shows no steps and none of fab's notes, as cron mails whatever is printed

# Host names and messages come from others: in what is printed, `safe` replaces characters that steer a terminal.
common_jq='
def safe: tostring | gsub("[\\p{C}]"; "?");
def outcomes: .commands[-1].outcomes[];
def images: (.result.images? // [])[];
def troubles: .commands[] | ((.error // empty) + {host: "all hosts"}), (.outcomes[] | select(.status != "skipped")
    | .host as $host | ((if .error and ([images] | length) == 1 then empty else images end), .result.steps[]?
        | .error? // empty), (.error // empty) | . + {host: $host});
def tenths: . * 10 | round;
def size: reduce ("KiB", "MiB", "GiB", "TiB") as $larger ([., "B"];
        if (.[0] | tenths) < 10240 then . else [.[0] / 1024, $larger] end)
    | if .[1] == "B" then "\(.[0]) B" else (.[0] | tenths | tostring) as $t | "\($t[:-1]).\($t[-1:]) \(.[1])" end;
def blank($width): . as $text | [range($width - ($text | length))] | map(" ") | join("");
# Rows of texts as lines. In the columns $right, texts stand on the right; the last column is not filled up.
def table($right): (transpose | map(map(length) | max)) as $widths | .[] | (length - 1) as $last
    | [to_entries[] | .key as $column | .value | if $column == $last then .
        elif $right | index($column) then blank($widths[$column]) + . else . + blank($widths[$column]) end]
    | join("  ");
# The words of the table of deliver for a route.
def route:
    {there: "there already", named: "named there", registry: "pulled", ssh: "copied over SSH", "": "none"}[.] // .;
'

# Prints the comment at the top of the runbook, and ends the runbook.
help() {
    sed -n '2,/^[^#]*$/s/^# \{0,1\}//p' "$0"
    exit 0
}

# step TEXT…: says what comes next.
step() {
    [ -n "$quiet" ] || say "$@"
}

# say TEXT…: prints one line on stderr.
say() {
    printf '%s: %s\n' "$runbook" "$*" >&2
}

# stop STATUS TEXT…: says why, and ends the runbook.
stop() {
    ends_with=$1
    shift
    say "$@"
    exit "$ends_with"
}

# misuse TEXT…: ends the runbook, because the command line is wrong.
misuse() {
    say "$@"
    stop 2 "try: $0 --help"
}

# value OPTION VALUE: refuses an option without a value.
value() {
    [ -n "${2-}" ] || misuse "$1 needs a value"
}

# needed OPTION VALUE…: refuses a command line on which one of these options is missing.
needed() {
    while [ $# -gt 0 ]; do
        [ -n "$2" ] || misuse "$1 is missing"
        shift 2
    done
}

# begin: checks what every runbook needs, and makes the folder $work, which goes when the runbook ends.
begin() {
    command -v jq >/dev/null || stop 2 "jq is missing; try: apt install jq"
    command -v "$fab" >/dev/null || stop 2 "fab is missing; try: CTR_FERRY=/path/to/clone $0"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# ask FILE WORDS…: runs `fab WORDS… --json`. FILE has its document then, and $code its exit status.
# Ends the runbook with the same status if nothing was started (2) or the run was cut off (130, 143).
ask() {
    answer=$1 code=0
    shift
    asked="${fab##*/} $*"
    [ "${fab##*/}" = ctr-ferry ] || set -- --search-root "$CTR_FERRY" "$@" # ctr-ferry knows its project
    if [ -n "$quiet" ]; then
        "$fab" "$@" --json >"$answer" 2>"$work/notes" || code=$?
    else
        "$fab" "$@" --json >"$answer" || code=$?
    fi
    case $code in
    0 | 1 | 4) if jq -es '.[0].commands' "$answer" >/dev/null 2>&1; then return; fi ;;
    esac
    [ -z "$quiet" ] || cat "$work/notes" >&2
    stop "$code" "stopped, because this did not run to its end: $asked"
}

# worst STATUS: makes it the status of the runbook, unless that is worse. A failed host (1) is worse than one that was
# not reached (4).
worst() {
    case $1:$status in
    0:* | *:1) ;;
    *) status=$1 ;;
    esac
}

# read_json FILE FILTER [OPTION…]: what jq makes of a document, as text.
read_json() {
    file=$1 filter=$2
    shift 2
    jq -r "$@" "$common_jq$filter" "$file"
}

# hosts_of PATTERN: the names of the hosts, with commas between them. `@failed` would be other hosts in a later step.
hosts_of() {
    ask "$work/hosts" -H "$1" hosts
    read_json "$work/hosts" '[.commands[-1].result.hosts[].host] | join(",")'
}

# complain FILE: prints on stderr what went wrong, on which hosts, and what to do. Hosts that say the same share a line.
# A command with a file of $work could not be run: the file is gone when the runbook has ended. A person wants no JSON.
complain() {
    read_json "$1" '[troubles
        | .hint |= (. // "" | if contains($work) then "run \($runbook) again" else split(" --json") | join("") end)
        | .host as $host | .hint |= (split("-H \($host) ") | join("-H \u0000 "))]
        | group_by([.kind, .message, .hint])[] | (map(.host) | unique | join(",")) as $hosts | .[0]
        | "\($hosts): \(.kind): \(.message)" + (if .hint == "" then "" else "; try: \(.hint)" end)
        | split("-H \u0000 ") | join("-H \($hosts) ") | safe' --arg work "$work/" --arg runbook "$runbook" >&2
}

# delivered FILE: prints what `fab deliver` did: for each host, status and route the images, what was moved, and why.
delivered() {
    read_json "$1" '[outcomes | .host as $host | [images] | group_by([.status, .route])[]
        | [$host, .[0].status, (.[0].route | route), "\(length) image\(if length == 1 then "" else "s" end)",
            (map(.bytes) | add | size),
            (map(.why) | unique | .[0] + if length == 1 then "" else " (for one of them)" end)]
        | map(safe)] | table([3, 4])'
}
