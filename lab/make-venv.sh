#!/bin/sh
# Makes .venv with the locked packages, and tells each step; installs python3-venv if Debian's Python lacks it.
set -eu
tell() { echo "venv: $*" >&2; }
python=$(command -v python3 || true)
fits() { "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$python" -c 'import venv, ensurepip' 2>/dev/null; }
if [ -z "$python" ] || ! has_venv; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "ctr-ferry needs Python 3.11 or newer with its venv module (Debian: python3-venv)." >&2
		exit 2
	fi
	tell "installing Debian's python3-venv"
	apt-get update -qq >/dev/null
	plan=$(apt-get install -s --no-install-recommends python3-venv)
	if echo "$plan" | grep -q '^Remv'; then
		echo "apt would remove packages to install python3-venv. Nothing was changed. Install python3-venv by hand." >&2
		exit 2
	fi
	said=$(DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv 2>&1) || {
		echo "$said" >&2
		exit 2
	}
	python=$(command -v python3)
fi
fits || { echo "ctr-ferry needs Python 3.11 or newer; $python is $("$python" -V)." >&2; exit 2; }
python=$("$python" -c 'import sys; print(sys._base_executable)') # in an active .venv, python3 is the one to replace
tell "making .venv with $("$python" -V)"
rm -rf .venv
"$python" -m venv .venv
tell "fetching the packages of requirements.lock"
# Only what is imported is ever compiled, by the first process that imports it.
install() {
	PYTHONUNBUFFERED=1 .venv/bin/python -m pip install --progress-bar off --disable-pip-version-check --no-compile \
		--require-hashes -r requirements.lock 2>.venv/errors || { cat .venv/errors >&2; return 1; }
	echo done.
}
# A pipe has the exit status of its last command alone. So a line of our own tells that pip succeeded.
install | {
	n=0 status=1
	while IFS= read -r line; do
		case $line in
		Collecting* | Processing*)
			n=$((n + 1))
			[ $((n % 8)) != 0 ] || tell "$n packages are here"
			;;
		Installing*) tell "installing them" ;;
		done.) status=0 ;;
		esac
	done
	exit "$status"
}
# Fabric's own `fab` shows tracebacks for wrong options, and runs what follows `--` without checking any host key.
ln -sf ../../ctr-ferry .venv/bin/fab
