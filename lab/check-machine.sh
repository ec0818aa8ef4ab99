#!/bin/sh
# Refuses a machine on which `make $1` cannot run; says in one sentence what it needs.
set -eu
target=$1
. /etc/os-release 2>/dev/null || ID=unknown
case "$ID:${VERSION_ID:-}" in
debian:12 | debian:13) ;;
*)
	echo "make $target needs Debian 12 or 13, since its rehearsal fleet is made of their packages; this is ${PRETTY_NAME:-another system}." >&2
	exit 2
	;;
esac
if [ "$(id -u)" != 0 ]; then
	echo "make $target needs root, since its rehearsal fleet lives in namespaces: run sudo make $target." >&2
	exit 2
fi
