"""A ctr that keeps names in a file, and scripts that are cut off while it works."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ctr_ferry.shell import Script

# A row of `names` is NAME DIGEST LABELS. CUT is a verb: the script gets TERM while ctr runs that verb, before ctr
# changes anything (CUT_AT=before), between its two changes (between), or after them (after). With UNCUT, there is no
# TERM. OTHER is a row that somebody else writes to `names` at that moment.
CTR = r"""#!/bin/sh
here=${0%/*}; names=$here/names; touch "$names"
[ "$1" = --address ] && shift 2; [ "$1" = --namespace ] && shift 2
verb="$1 $2"; shift 2
echo "$verb $*" >> "$here/log"
moment() {
  [ "$CUT" = "${verb#* }" ] && [ "$CUT_AT" = "$1" ] && [ ! -e "$here/cut" ] || return 0
  : > "$here/cut"
  [ -z "$OTHER" ] || put $OTHER
  [ -n "$UNCUT" ] || { kill -s TERM $MAIN; exit 143; }
}
row() { grep "^$1 " "$names"; }
drop() { grep -v "^$1 " "$names" > "$names.new.$$"; mv "$names.new.$$" "$names"; }
put() {  # NAME DIGEST LABELS; labels stay where the name is moved, as by import
  labels=$(row "$1" | cut -d' ' -f3); drop "$1"; echo "$1 $2 ${labels:-${3:--}}" >> "$names"
  [ -z "$CRI" ] || { drop "$1"; echo "$1 $2 io.cri-containerd.image=managed${labels:+,$labels}" >> "$names"
    row "$CRI" >/dev/null || echo "$CRI $2 -" >> "$names"; }
}
list() {
  quiet=; [ "$1" != -q ] || { quiet=1; shift; }
  [ -n "$quiet" ] || echo "REF TYPE DIGEST SIZE PLATFORMS LABELS"
  while read -r name digest labels; do
    fits=; [ $# != 0 ] || fits=1
    for filter in "$@"; do
      wanted=$(echo "$filter" | sed -n 's/^name=="\([^"]*\)".*/\1/p')
      target=$(echo "$filter" | sed -n 's/.*target.digest=="*\(sha256:[0-9a-f]*\).*/\1/p')
      case $filter in 'name~="^sha256:"') case $name in sha256:*) fits=1;; esac; continue;; esac
      { [ -z "$wanted" ] || [ "$wanted" = "$name" ]; } && { [ -z "$target" ] || [ "$target" = "$digest" ]; } && fits=1
    done
    [ -n "$fits" ] || continue
    [ -n "$quiet" ] && echo "$name" || echo "$name a/manifest $digest 3.0 MiB linux/amd64 $labels"
  done < "$names"
}
moment before
case $verb in
  "images ls") list "$@";;
  "images tag")
    force=; while case $1 in --force) force=1;; --local) ;; *) false;; esac do shift; done
    digest=$(row "$1" | cut -d' ' -f2)
    [ -n "$digest" ] || { echo "ctr: image \"$1\": not found" >&2; exit 1; }
    if row "$2" >/dev/null; then
      [ -n "$force" ] || { echo "ctr: image \"$2\": already exists" >&2; exit 1; }
      drop "$2"
    fi
    moment between; put "$2" "$digest";;
  "images import")
    entries=$(tr -d '\000' | grep -ao '"digest": *"[^"]*"[^}]*image.name": *"[^"]*"')
    [ -n "$entries" ] || exit 0
    moment between
    echo "$entries" | sed 's/^"digest": *"\([^"]*\)".*image.name": *"\([^"]*\)"$/\2 \1/' | while read -r name digest; do
      [ -z "$TWO" ] || { put "$name" "$TWO"; echo "ctr: image \"$name\": already exists" >&2; exit 1; }
      put "$name" "$digest"
    done;;
  "content ls") cat "$here/blobs";;
  "images pull")
    for name in "$@"; do :; done
    case $name in *@*) put "$name" "${name#*@}";; *) put "$name" "$PULLED";; esac;;
  "images rm") for name in "$@"; do drop "$name"; done;;
  "images check")
    echo "REF TYPE DIGEST STATUS SIZE UNPACKED"
    list "$@" | sed -n "s/ 3.0 MiB .*/ ${STATUS:-complete (2\/2)} 1.0 MiB\/1.0 MiB ${UNPACKED:-true}/p";;
esac
status=$?
moment after
exit $status
"""


def put_ctr(folder: Path) -> None:
    """Write the ctr to a folder."""
    (folder / "ctr").write_text(CTR)
    (folder / "ctr").chmod(0o755)


def run_cut(script: Script, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script as the guard does: after a TERM, its clean-up runs, and the exit status is 143."""
    return subprocess.run(
        ["/bin/sh"],
        input=f"MAIN=$$; export MAIN; trap 'exit 143' TERM\n{script.render('MARK')}",
        env={"PATH": "/usr/bin:/bin", "TMPDIR": os.environ["TMPDIR"], **env},
        capture_output=True,
        text=True,
        check=False,
    )
