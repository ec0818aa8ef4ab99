#!/bin/sh
# Refuses a machine on which `make $1` cannot run, in one sentence; says how much a first run fetches and writes.
set -eu
target=$1
if [ "$target" != bundle ]; then
	# shellcheck disable=SC1091 # it is the machine's own
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
fi
[ "$target" != lab-down ] || exit 0
# Measured on Debian 12.
if [ ! -e .venv/ready ]; then
	echo "make $target makes .venv: it fetches about 40 MB of Python packages, and writes 200 MB." >&2
fi
if [ "$target" = bundle ]; then
	echo "make bundle fetches up to 80 MB of wheels into dist/.wheels, and writes an archive of 30 MB. Wheels that are there are not fetched again." >&2
elif [ ! -e lab/.state/cache/trees ]; then
	echo "make $target makes the rehearsal fleet below lab/.state: it fetches about 200 MB of Debian packages, and writes 700 MB." >&2
elif [ ! -e lab/.state/nodes ]; then
	echo "make $target starts the rehearsal fleet from lab/.state/cache: it fetches nothing, and writes about 100 MB." >&2
fi
