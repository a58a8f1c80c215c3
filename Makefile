# The commands of this project. `make run` and `make test` install what is missing first.

ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src bpf -type f -not -name '*.pyc' -not -path '*/__pycache__/*') meson.build pyproject.toml
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run test check build bench wheel wire lint types clean vm fuzz

run: build
ifeq ($(ARGS),)
	@$(SUDO) $(BIN)/python tools/demo.py
else
	@$(SUDO) $(abspath $(BIN))/ecapture $(ARGS)
endif

build: $(VENV)/.built

$(VENV)/.tools: tools/setup.sh pyproject.toml
	@tools/setup.sh build
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
		--config-settings=build-dir=build/$(shell uname -m) .
	@touch $@

# What the tests need beside what a build needs: servers, clients, test libraries.
$(VENV)/.test-tools: tools/setup.sh pyproject.toml
	@tools/setup.sh test
	@touch $@

# Everything that this machine can run.
test: build $(VENV)/.test-tools
	@$(MAKE) --no-print-directory lint types
	@$(SUDO) env ECAPTURE_REQUIRE=1 $(abspath $(BIN))/python -m pytest -q

# Lint, types and logic, in well under two minutes and without root.
check: build $(VENV)/.test-tools
	@$(MAKE) --no-print-directory lint types
	@$(BIN)/python -m pytest -q tests/unit tests/built

lint:
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint --max-line-length=120 src/ecapture/kernel/*.pyx src/ecapture/kernel/*.pxd src/ecapture/pipeline/*.pyx src/ecapture/formats/*.pyx
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache > /dev/null || PYTHONPATH=src $(BIN)/lint-imports --no-cache

types:
	@$(BIN)/mypy --no-error-summary

vm: build $(VENV)/.test-tools
	@$(SUDO) env ECAPTURE_REQUIRE=1 $(abspath $(BIN))/python -m pytest -q tests/vm

bench: build $(VENV)/.test-tools
	@$(SUDO) $(BIN)/python benchmarks/bench.py $(ARGS)

# Many inputs for every parser; ARGS="--inputs 1000000 --seed 7" for more, or for others.
fuzz: build
	@for script in tests/fuzz/fuzz_*.py; do echo "$$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

# After a change of bpf/wire.h.
wire: build
	@$(BIN)/python tools/gen_wire.py build/$(shell uname -m)/bpf/wire.$(shell uname -m).bpf.o src/ecapture/_wire.py
	@$(BIN)/ruff format --quiet src/ecapture/_wire.py

# A wheel with libbpf and libelf inside, for machines without either.
wheel: build
	@tools/wheel.sh

clean:
	rm -rf build dist $(VENV)
