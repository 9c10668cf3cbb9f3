# The two commands: `make demo` does the main job on rendered scenes, `make test` passes the tests. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := studio,s3,models,review,postgres,groundingdino,lance,docs,dev
# One set of versions; on Linux x86-64 with the hashes of their files, and a file with another one is not installed. For
# versions of Python that have none there (they cover 3.11 to 3.14): make CONSTRAINTS=constraints.txt
CONSTRAINTS := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),constraints-linux-x86_64.txt,constraints.txt)
ENV := NO_MKDOCS_2_WARNING=1 RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1
# What is listed is installed, and this checkout beside it, which pip's mode with hashes would refuse. No build fetches
# anything of its own.
define install
	$(BIN)/python tools/list_dependencies.py $(1) > $(VENV)/dependencies.txt
	$(PIP) --no-build-isolation --constraint $(CONSTRAINTS) --requirement $(VENV)/dependencies.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endef
PIP := $(BIN)/python -m pip install --quiet $(if $(filter constraints.txt,$(CONSTRAINTS)),,--require-hashes)
# Three processes side by side, since half of the time they wait for others; a test file stays in one of them, so that
# what its tests share is made once. Files come in the order of tests/conftest.py, the longest first.
PYTEST := $(ENV) $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: help demo setup format lint typecheck test-fast test test-agpl docs docs-check bench loop-demo clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## run, verify and report on rendered scenes (half a minute on two cores)
	$(ENV) $(BIN)/rasura run recipes/demo.yaml --into runs/demo
	$(ENV) $(BIN)/rasura verify runs/demo
	$(ENV) $(BIN)/rasura report runs/demo

setup: $(VENV)/.ready ## install everything that the other commands need

format: $(VENV)/.ready ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/.ready ## check style, complexity, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

typecheck: $(VENV)/.ready ## check types only
	$(BIN)/mypy

test-fast: $(VENV)/.ready ## tests without Ray, browser, database server and torch (under two minutes)
	$(PYTEST) -m "not ray and not browser and not postgres and not torch and not slow"

test: $(VENV)/.ready ## all tests but those of test-agpl
	$(PYTEST)

# ultralytics is under the AGPL-3.0: it is installed by this command alone, into an environment of its own.
test-agpl: ## the tests of the detector YOLO, whose library is under the AGPL-3.0
	$(MAKE) setup VENV=.venv-agpl EXTRAS=studio,models,yolo,dev
	$(ENV) .venv-agpl/bin/python -m pytest tests/stages/detectors

docs: $(VENV)/.ready ## build the site with the API reference into site/; broken links are errors
	$(ENV) $(BIN)/mkdocs build --strict

docs-check: $(VENV)/.ready ## run every command of README and docs, in order
	$(ENV) $(BIN)/python -m pytest tests/docs --run-docs --numprocesses 2

# The loop at tiny size beside its controls, 21 to 28 minutes on two cores; PHOTOS=FOLDER: some dozens of photographs.
loop-demo: $(VENV)/.ready ## the loop at tiny size beside its controls (21 to 28 minutes on two cores)
	$(ENV) $(BIN)/python -m benchmarks.loop_arms runs/loop-demo $(if $(PHOTOS),--photos $(PHOTOS))

bench: $(VENV)/.ready ## the measurements
	$(ENV) $(BIN)/python -m benchmarks

# For the demo: what renders and runs it.
$(VENV)/.demo: pyproject.toml constraints.txt constraints-linux-x86_64.txt tools/list_dependencies.py
	$(PYTHON) -m venv $(VENV)
	awk '/^(pip|setuptools)==/ {on = 1} on; !/\\$$/ {on = 0}' $(CONSTRAINTS) > $(VENV)/installer.txt
	$(PIP) --requirement $(VENV)/installer.txt
	$(call install,studio)
	touch $@

# For the tests: everything but what is under the AGPL. torchvision from the package index is linked to CUDA; the script
# makes it load beside a CPU torch and does nothing beside a CUDA one. torch is fetched before its hash is checked: in its
# mode with hashes, pip passes a CPU build over that lies in a folder of wheels (PIP_FIND_LINKS).
$(VENV)/.ready: $(VENV)/.demo tools/torchvision_on_cpu_torch.py
	$(BIN)/python -m pip download --quiet --no-deps --constraint constraints.txt --dest $(VENV)/torch torch
	awk '/^torch==/ {on = 1; $$1 = wheel} on; !/\\$$/ {on = 0}' wheel="$$(ls $(VENV)/torch/*.whl)" $(CONSTRAINTS) > $(VENV)/torch.txt
	$(PIP) --no-deps --requirement $(VENV)/torch.txt
	rm -r $(VENV)/torch
	$(call install,$(EXTRAS))
	$(BIN)/python tools/torchvision_on_cpu_torch.py
	touch $@

clean: ## delete the environment, runs and caches
	rm -rf $(VENV) .venv-agpl runs site .mypy_cache .ruff_cache .pytest_cache
