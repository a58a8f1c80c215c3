#!/bin/sh
# Installs what is missing: `setup.sh build` for building and running, `setup.sh test` for the tests as well.
# Uses apt where there is one; elsewhere it says what it looked for.
set -eu
cd "$(dirname "$0")/.."
what=${1:-build}

packages="clang gcc libbpf-dev libelf-dev zlib1g-dev linux-libc-dev pkg-config python3-dev python3-venv openssl curl"
if [ "$what" = test ]; then
	packages="$packages busybox-static fish libssl-dev gcc-aarch64-linux-gnu nginx-light nghttp2-client wrk binutils util-linux iproute2 tmux tshark wget mariadb-server-core mariadb-client mariadb-client-core libmariadb-dev libnss3 libnss3-tools libgnutls28-dev gnutls-bin postgresql zsh dash"
	# what not every release has
	id=$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${VERSION_ID:-}")
	case "$id" in debian*) packages="$packages firefox-esr chromium thunderbird" ;; esac
	case "$id" in
	"debian 12") packages="$packages libcurl3-nss libcurl3-gnutls" ;;
	*) packages="$packages libcurl3t64-gnutls" ;;
	esac
	command -v node >/dev/null || packages="$packages nodejs"
	command -v npm >/dev/null || packages="$packages npm"
	if [ -x .venv/bin/python ]; then
		packages="$packages $(.venv/bin/python tests/vm/guest.py --apt-packages)"
	fi
fi

missing=""
if command -v dpkg-query >/dev/null; then
	for package in $packages; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
	done
else
	echo "setup: no apt here; these must be present by other means: $packages" >&2
fi
if [ -n "$missing" ]; then
	echo "setup: installing$missing" >&2
	as_root=""
	[ "$(id -u)" = 0 ] || as_root=sudo
	log=$(mktemp)
	# nginx must not start by itself: the tests start their own
	if ! { $as_root apt-get update -qq &&
		$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
		cat "$log" >&2
		echo "setup: apt-get failed; install by hand and call make again:$missing" >&2
		exit 1
	fi
	rm -f "$log"
fi

if [ ! -x .venv/bin/python ]; then
	python=""
	for candidate in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
		if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			python=$candidate
			break
		fi
	done
	if [ -z "$python" ]; then
		echo "setup: Python 3.11 or later with venv is needed; found $(python3 --version 2>&1)" >&2
		exit 1
	fi
	"$python" -m venv .venv
fi

# What pyproject.toml names, read from there so that it stands in one place.
requirements=$(.venv/bin/python - "$what" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
extras = project["project"]["optional-dependencies"]
if sys.argv[1] == "test":
    for names in extras.values():
        wanted += names
print("\n".join(wanted))
PY
)
echo "$requirements" | .venv/bin/pip install --quiet --disable-pip-version-check -r /dev/stdin
