# One command each; CI calls the same targets. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard $(addprefix src/trunkline/backend/plugins/,*.pxi */*.p[yx][xd] */native/*.pxi))
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
export UCX_NET_DEVICES ?= lo

.PHONY: demo test soak check format bench docs clean

demo: $(VENV)/.installed ## the main job: two processes, a local etcd, a paged KV cache, a death and a return
	$(BIN)/trunkline demo

test: $(VENV)/.tests ## all tests that end within ten minutes
	$(BIN)/python -m pytest -m "not soak" -n 3 --dist worksteal $(PYTEST_ARGS)

soak: $(VENV)/.tests ## the long ones: long fault sequences, a million mutants, scale
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

check: $(VENV)/.checks ## format, lint, spelling, types, import contracts, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

format: $(VENV)/.checks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.tests ## ratios to NIXL where its wheel can be installed; JSON lines on stdout
	$(BIN)/python -m benchmarks

docs: $(VENV)/.checks
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build site src/*.egg-info src/trunkline/backend/plugins/*/_native*.so src/trunkline/backend/plugins/*/_native.c

$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Trunkline needs Python 3.11 or later; run: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "pip>=25.1"
	$(PIP) "setuptools>=77" Cython "libucx-cu12; sys_platform == 'linux'"
	$(PIP) --no-build-isolation --editable ".[all]"
	touch $@

# NVIDIA's wheel is the real peer of the interop tests; without it they are skipped, with that reason.
$(VENV)/.tests: $(VENV)/.installed
	$(PIP) --group test
	$(PIP) --no-deps nixl-cu12 || echo "nixl-cu12 can't be installed here: interop tests will be skipped" >&2
	touch $@

$(VENV)/.checks: $(VENV)/.tests
	$(PIP) --group check --group docs
	touch $@
