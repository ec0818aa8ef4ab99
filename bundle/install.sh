#!/bin/sh
# install.sh: sets ctr-ferry up for this user, from this folder alone: it needs neither a network nor root.
#
#   ./install.sh [--prefix DIR] [--python PROGRAM]    installs, or replaces what is installed
#   install.sh --uninstall [--prefix DIR]             removes all of it
#
#   --prefix DIR      everything goes to DIR/share/ctr-ferry, and the command to DIR/bin; else DIR is ~/.local
#   --python PROGRAM  the Python to use; else the first in PATH that fits: python3, then python3.14 to python3.11
#
# An installation that fails leaves the installed one as it is. Inventory, settings (~/.config/ctr-ferry) and records
# (~/.local/state/ctr-ferry) are yours: neither an upgrade nor --uninstall touches them.
# Exit status: 0 done, 1 it did not work out, 2 this machine or the command line does not fit.
set -eu

say() { printf 'install.sh: %s\n' "$*" >&2; }

stop() {
	ends_with=$1
	shift
	say "$*"
	exit "$ends_with"
}

main() {
	here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd -P)
	prefix='' python='' uninstall=''
	while [ $# -gt 0 ]; do
		case $1 in
		-h | --help)
			sed -n '2,/^[^#]*$/s/^# \{0,1\}//p' "$here/install.sh"
			exit 0
			;;
		--prefix | --python)
			[ -n "${2-}" ] || stop 2 "$1 needs a value; try: $0 --help"
			if [ "$1" = --prefix ]; then prefix=$2; else python=$2; fi
			shift
			;;
		--prefix=*) prefix=${1#*=} ;;
		--python=*) python=${1#*=} ;;
		--uninstall) uninstall=yes ;;
		*) stop 2 "there is no option $1; try: $0 --help" ;;
		esac
		shift
	done
	umask 022
	choose_prefix
	if [ -n "$uninstall" ]; then
		uninstall
	else
		[ -d "$here/wheels" ] || stop 2 "there are no wheels in $here: run install.sh of an unpacked bundle"
		install
	fi
}

# Sets $prefix, $folder (all of ctr-ferry) and $command (the link in PATH).
choose_prefix() {
	if [ -z "$prefix" ] && [ -e "$(dirname "$here")/.made" ]; then
		prefix=${here%/share/ctr-ferry/*} # this is the installed install.sh
	fi
	if [ -z "$prefix" ]; then
		[ -n "${HOME-}" ] || stop 2 "HOME is not set, so name the folder: $0 --prefix DIR"
		prefix=$HOME/.local
	fi
	case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
	prefix=${prefix%/}
	folder=$prefix/share/ctr-ferry command=$prefix/bin/ctr-ferry
}

# Whether the command in PATH is ours, or is not there yet.
is_ours() {
	[ ! -e "$command" ] && [ ! -L "$command" ] && return 0
	[ "$(readlink "$command" || true)" = "$folder/current/ctr-ferry" ]
}

# in_use FOLDER: the numbers of the processes that run from a version's folder.
in_use() {
	# shellcheck disable=SC2062 # the pattern comes from stdin, so that grep does not find itself
	printf '%s\n' "$1/.venv/" | grep -lsF -f - /proc/[0-9]*/cmdline | sed 's|/proc/||; s|/cmdline||' | tr '\n' ' '
}

uninstall() {
	[ -e "$folder/.made" ] || stop 2 "ctr-ferry is not installed in $folder; name its folder: $0 --uninstall --prefix DIR"
	running=$(for each in "$folder"/*/; do in_use "${each%/}"; done)
	[ -z "$running" ] || stop 1 "ctr-ferry is running: wait for process $running, then try again"
	[ -w "$folder" ] || stop 1 "$folder belongs to another user: remove it as that user"
	cd /
	made=$(cat "$folder/.made")
	if is_ours; then rm -f "$command"; fi
	rm -rf "$folder"
	printf '%s\n' "$made" | remove_empty
	say "ctr-ferry is removed. Your inventory, settings and records stay, where there are any:" \
		"${XDG_CONFIG_HOME:-~/.config}/ctr-ferry and ${XDG_STATE_HOME:-~/.local/state}/ctr-ferry"
}

# Removes the folders of stdin that are empty; the deepest is the first.
remove_empty() {
	while IFS= read -r each; do
		[ -z "$each" ] || rmdir "$each" 2>/dev/null || true
	done
}

# missing DIR: the folders that `mkdir -p DIR` would make, the deepest first.
missing() {
	each=$1
	while [ ! -e "$each" ]; do
		printf '%s\n' "$each"
		each=$(dirname "$each")
	done
}

install() {
	version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$here/ctr_ferry/__init__.py")
	check_machine
	choose_python
	check_sums
	is_ours || stop 2 "$command is another program: remove it, or name another folder with --prefix DIR"
	if [ -d "$folder" ] && [ ! -e "$folder/.made" ]; then
		stop 2 "$folder has something else in it: move it away, or name another folder with --prefix DIR"
	fi
	made='' new='' link=''
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' HUP TERM
	make_folders
	check_space
	new=$(mktemp -d "$folder/$version.XXXXXX") # mktemp replaces the X with random letters
	chmod 755 "$new"
	say "installing ctr-ferry $version with $("$python" -V) in $folder"
	fill
	switch
	tell_path
}

check_machine() {
	machine=$(uname -m) machines=$(cat "$here/wheels/machines") pythons=$(cat "$here/wheels/pythons")
	[ "$(uname -s)" = Linux ] || stop 2 "this bundle is for Linux, and this machine runs $(uname -s)"
	case " $machines " in
	*" $machine "*) ;;
	*) stop 2 "this bundle is for $machines, and this machine is $machine: make one for it with MACHINES=$machine make bundle" ;;
	esac
}

# Sets $python to the first that fits.
choose_python() {
	asked=$python python='' seen='' reason=''
	for each in ${asked:-python3 python3.14 python3.13 python3.12 python3.11}; do
		found=$(command -v "$each" 2>/dev/null) || continue
		# A pyenv shim exists for a Python that is not chosen there: it fails.
		kind=$("$found" -E -s -c 'import platform, sys
print("%d.%d" % sys.version_info[:2], platform.python_implementation(), platform.libc_ver()[0] or "another-libc")' \
			2>/dev/null) || :
		if [ -z "$kind" ]; then
			[ -z "$asked" ] || stop 2 "$found does not run, or is no Python"
			continue
		fi
		try_python "$found" "$("$found" -I -c 'import ensurepip, venv' 2>/dev/null && echo venv)" || continue
		python=$found
		return
	done
	[ -z "$reason" ] || stop 2 "$reason"
	[ -z "$seen" ] || stop 2 "ctr-ferry needs Python 3.11 or later, and there is only$seen"
	stop 2 "ctr-ferry needs Python 3.11 or later, and ${asked:-python3} is not here"
}

# try_python PROGRAM VENV: whether it fits; else $seen or $reason says why not. VENV is empty if it lacks that module.
try_python() {
	is=${kind%% *} rest=${kind#* }
	case $is in
	2.* | 3.? | 3.10)
		seen="$seen $1 ($is)"
		return 1
		;;
	esac
	if [ "$rest" != "CPython glibc" ]; then
		why="this bundle is for CPython with glibc, and $1 is ${rest% *} with ${rest#* }"
	elif case " $pythons " in *" $is "*) false ;; esac then
		why="this bundle has wheels for Python $pythons, and $1 is $is: make one for it with PYTHONS=$is make bundle"
	elif [ -z "$2" ]; then
		why="$1 has no venv module: install it (Debian and Ubuntu: python$is-venv), or name another Python with --python"
	else
		return 0
	fi
	reason=${reason:-$why}
	return 1
}

check_sums() {
	wrong=$("$python" -I -c 'import hashlib, pathlib, sys
top = pathlib.Path(sys.argv[1])
for line in (top / "SHA256SUMS").read_text().splitlines():
    digest, name = line.split("  ", 1)
    file = top / name
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        sys.exit(print(name))' "$here" 2>/dev/null) || wrong=SHA256SUMS
	[ -z "$wrong" ] || stop 1 "this bundle is damaged, at $wrong: unpack it again, or copy it here again"
}

check_space() {
	needed=92160 # KiB while it installs; 53 MiB stay
	free=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
	case $free in '' | *[!0-9]*) return ;; esac
	[ "$free" -ge "$needed" ] ||
		stop 1 "there are $((free / 1024)) MiB free at $folder, and installing needs $((needed / 1024)) MiB"
}

make_folders() {
	kept=$(cat "$folder/.made" 2>/dev/null || true)
	made=$(missing "$folder" && missing "$prefix/bin")
	said=$(mkdir -p "$folder" "$prefix/bin" 2>&1) || stop 1 "$folder cannot be made: ${said##*: }"
	if [ ! -w "$folder" ] || [ ! -w "$prefix/bin" ]; then
		stop 1 "you may not write into $folder and $prefix/bin: name another folder with --prefix DIR"
	fi
	[ -e "$folder/.made" ] || printf '%s\n' "$made" >"$folder/.made"
	[ -z "$kept" ] || made='' # an upgrade: nothing goes if it fails
}

# Copies the project, and installs the wheels beside it.
fill() {
	for each in "$here"/*; do
		case ${each##*/} in wheels) ;; *) run cp -R "$each" "$new/" ;; esac
	done
	chmod 755 "$new/ctr-ferry" "$new/install.sh" "$new"/runbooks/[a-z]*-*.sh # FAT keeps no modes
	run chmod -R u+w,a+rX "$new"
	run "$python" -I -m venv "$new/.venv"
	run env PIP_CONFIG_FILE=/dev/null "$new/.venv/bin/python" -I -m pip --isolated --disable-pip-version-check \
		--no-cache-dir install --quiet --no-index --find-links "$here/wheels" --no-deps --require-hashes \
		--only-binary :all: -r "$new/requirements-run.lock"
	run "$new/.venv/bin/python" -I -m compileall -q "$new/ctr_ferry" "$new/tasks" "$new/fabfile.py"
	# Nothing is installed there later. Runbooks start the command under its own name.
	run "$new/.venv/bin/python" -I -m pip --isolated uninstall --quiet --yes pip setuptools
	rm -f "$new/.venv/bin/fab" "$new/.venv/bin/inv" "$new/.venv/bin/invoke" "$new/log"
	ln -s ../../ctr-ferry "$new/.venv/bin/ctr-ferry"
	run "$new/ctr-ferry" --version
	rm -f "$new/log"
}

# run COMMAND…: says in one sentence why a command failed, and ends the installation.
run() {
	"$@" >"$new/log" 2>&1 && return
	if grep -qi 'no space left\|disk quota' "$new/log"; then stop 1 "there is no space left at $folder"; fi
	last=$(grep -v '^ *$\|^Traceback\|^  ' "$new/log" | tail -n 1)
	stop 1 "${1##*/} failed: ${last:-it said nothing}"
}

# Puts the new version into the place of the old one, in one step, and removes versions that no process uses.
switch() {
	ln -s "${new##*/}" "$new/current"
	replace "$new/current" "$folder/current"
	if [ ! -L "$command" ]; then
		link=$command
		ln -s "$folder/current/ctr-ferry" "$command"
	fi
	chosen=$new new='' made='' link='' # from here on, it is installed
	for each in "$folder"/*/; do
		each=${each%/}
		if [ "$each" = "$chosen" ] || [ -L "$each" ]; then continue; fi
		if [ -n "$(in_use "$each")" ]; then
			say "the version before is still running: the next upgrade removes it"
		else
			rm -rf "$each"
		fi
	done
}

replace() { "$python" -I -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' "$1" "$2"; }

tell_path() {
	case ":$PATH:" in
	*":$prefix/bin:"*) say "done; try: ctr-ferry --version" ;;
	*) say "done; $prefix/bin is not in your PATH: export PATH=\"$prefix/bin:\$PATH\"; then try: ctr-ferry --version" ;;
	esac
}

# Removes what a failed installation has made.
clean_up() {
	status=$?
	trap - EXIT
	[ -z "$link" ] || rm -f "$link"
	[ -z "$new" ] || rm -rf "$new"
	if [ -n "$made" ]; then
		rm -f "$folder/.made"
		printf '%s\n' "$made" | remove_empty
	fi
	exit "$status"
}

main "$@"
