#!/bin/sh
# Says in one sentence what `make $1` needs, where this machine is not that.
set -eu
target=$1
. /etc/os-release 2>/dev/null || ID=unknown
case "$ID:${VERSION_ID:-}" in
debian:12 | debian:13) ;;
*)
	echo "make $target needs Debian 12 or 13, whose packages its rehearsal fleet is made of; this is ${PRETTY_NAME:-another system}." >&2
	exit 2
	;;
esac
if [ "$(id -u)" != 0 ]; then
	echo "make $target needs root, since its rehearsal fleet lives in namespaces: run sudo make $target." >&2
	exit 2
fi
