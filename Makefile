# The two commands: `make demo` does the main job on rendered scenes, `make test` passes the tests. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := studio,s3,models,review,postgres,groundingdino,yolo,docs,dev
ENV := NO_MKDOCS_2_WARNING=1 RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1
# Two processes side by side; a test file stays in one of them, so that what its tests share is made once.
PYTEST := $(ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: help demo setup format lint typecheck test-fast test docs docs-check bench loop-demo clean

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

test: $(VENV)/.ready ## all tests
	$(PYTEST)

docs: $(VENV)/.ready ## build the site with the API reference into site/; broken links are errors
	$(ENV) $(BIN)/mkdocs build --strict

docs-check: $(VENV)/.ready ## run every command of README and docs, in order
	$(ENV) $(BIN)/python -m pytest tests/docs --run-docs

# The loop at tiny size beside its controls, about 21 minutes on two cores; PHOTOS=FOLDER: some dozens of photographs.
loop-demo: $(VENV)/.ready ## the loop at tiny size beside its controls (21 minutes on two cores)
	$(ENV) $(BIN)/python -m benchmarks.loop_arms runs/loop-demo $(if $(PHOTOS),--photos $(PHOTOS))

bench: $(VENV)/.ready ## the measurements
	$(ENV) $(BIN)/python -m benchmarks

# For the demo: what renders and runs it.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[studio]'
	touch $@

# For the tests: everything. torchvision from the package index is linked to CUDA; the script makes it load beside a CPU
# torch and does nothing beside a CUDA one.
$(VENV)/.ready: $(VENV)/.demo tools/torchvision_on_cpu_torch.py
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python tools/torchvision_on_cpu_torch.py
	touch $@

clean: ## delete the environment, runs and caches
	rm -rf $(VENV) runs site .mypy_cache .ruff_cache .pytest_cache
