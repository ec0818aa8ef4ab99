"""The sh text of `ctr/` that is subtle: templates, which `fill` completes. Pure.

In a template, ``@word@`` stands for text that the caller has quoted already: a command line, a number, a shell word.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"@([a-z_]+)@")


def fill(template: str, /, **words: object) -> str:
    """Returns the text of a template with its words put in; raises KeyError for a word that was not given."""
    return _WORD.sub(lambda found: str(words[found[1]]), template.strip("\n"))


# Checks once more, right before the step, that nobody has the name. From here on, the name counts as ours.
UNLESS_TAKEN = r"""
if [ -n "$(@listing@)" ]; then (exit @taken@); else began_@number@=1; @step@; fi
"""

# Exit status 1 of `images tag` means that it gave no name; any other one, that it was cut off.
BY_TAG = r"""
{ @step@ || { e=$?; [ $e != 1 ] || began_@number@=; (exit $e); }; }
"""

# Creates a name by import. Two runs that find no name both create it. ctr tells one of them that it exists: that run
# gave none.
CREATE = r"""
{ said=$({ @step@; } 2>&1 >/dev/null); e=$?; [ -z "$said" ] || printf '%s\n' "$said" >&2
case "$said" in *": already exists"*) began_@number@=;; esac; (exit $e); }
"""

# Creates many names by one import, if nobody has any of them. Those that are not there then are given one by one.
CREATE_ALL = r"""
taken=$(@listing@)
if [ $? = 0 ] && [ -z "$taken" ]; then
  @began@
  if { @step@; } >/dev/null 2>&1; then
    @given@
  else
    came=$(@rows@); @not_given@
@come@
  fi
fi
:
"""

# Labels an index so that all manifests which it names are kept. Digests that are not there do no harm.
KEEP_CHILDREN = r"""
( set --; n=0
for each in $(@get@ | tr '"' '\n' | grep -x @digest@ | sort -u); do
  set -- "$@" "@key@.rest.$n=$each"; n=$((n+1))
done
[ $# = 0 ] || @label@ "$@" >/dev/null )
"""

# Pipes an export into an import, and then gives the exact name. Both exit statuses count.
STREAM = r"""
{ streamed_@number@=1
statuses=$( { { @exported@; echo $? >&3; } | { @imported@ >&4; echo $? >&3; }; } 3>&1 ) 4>&1
[ "$(echo $statuses)" = "0 0" ] && { @exact@; }
}
"""

# Links blobs of another namespace. A root of ours refers to all of them before they are there.
LINK = r"""
linked=1; unlinked_@number@=1
{ @steps@; } && linked=0 && unlinked_@number@=
"""

# Ends the protection of what was linked. If an ingest was cut off in the middle, containerd keeps what has come.
UNLINK = r"""
@remove@ >/dev/null 2>&1
[ -z "$unlinked_@number@" ] || { @open@ && {
@finish@
}; } >/dev/null 2>&1
@close@
"""

# Takes in a root's own blob and labels it. A collection may take the blob in between: then once more.
PREPARE_ROOT = r"""
{ safe=1
for n in @tries@; do
  @take@ || break
  @label@ >/dev/null && safe=0 && break
done
[ $safe = 0 ]; }
"""

# Finishes the ingests of this run; descriptor 5 is an empty regular file.
# An ingest that was just cut off, or is at work, is locked for a moment.
FINISH_INGESTS = r"""
for n in 1 2 3 4 5; do
  keys=$(@active@ | sed -n 's/^\(@owner@-[^[:space:]]*\).*/\1/p')
  [ -n "$keys" ] || break
  [ $n = 1 ] || sleep 1
  for key in $keys; do @finish@; done
done
"""

# Ends a protection. Blobs of an image that has no name are not collected at once: another run may go on from there.
# A containerd that is down costs ten seconds a question.
RELEASE_ROOTS = r"""
@pause@
@ask@ >/dev/null 2>&1 || { sleep 3; @ask@ >/dev/null 2>&1; } || return
{ if [ -n "$named" ]; then
@remove@
else
@release@
fi
@finish@
@old@
} >/dev/null 2>&1
"""
