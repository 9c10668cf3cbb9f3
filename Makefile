# The two commands: `make demo` does the main job on rendered scenes, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := studio,s3,models,review,postgres,groundingdino,yolo,dev
ENV := RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1

.PHONY: demo test lint bench loop-demo clean

demo: $(VENV)/.demo
	$(ENV) $(BIN)/rasura run recipes/demo.yaml --into runs/demo
	$(ENV) $(BIN)/rasura verify runs/demo
	$(ENV) $(BIN)/rasura report runs/demo

test: $(VENV)/.ready
	$(ENV) $(BIN)/python -m pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The loop at tiny size beside its controls, about 21 minutes on two cores; PHOTOS=FOLDER: some dozens of photographs.
loop-demo: $(VENV)/.ready
	$(ENV) $(BIN)/python -m benchmarks.loop_arms runs/loop-demo $(if $(PHOTOS),--photos $(PHOTOS))

bench: $(VENV)/.ready
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

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache
