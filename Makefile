# Two commands for a fresh machine: make demo, make test. Both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test faults fuzz keep-rules fleet bench lint clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest

# Every system call of a conversion fails once, and is once the last one: some minutes.
faults: $(INSTALLED)
	$(BIN)/python -m pytest tests/faults --every-point

# At least 100,000 mutated headers, indexes and configs: some minutes.
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz $(ARGS)

# Builds every type of model that transformers knows: what changed against the table of keep
# rules, and does a conversion store what transformers stores? Some minutes.
keep-rules: $(INSTALLED)
	$(BIN)/python -m tools.observe_keep_rules --check
	$(BIN)/python -m pytest tests/peers/test_every_model_type.py --every-model-type

# Workers are killed again and again while a hundred checkpoints are repaired: some minutes.
fleet: $(INSTALLED)
	$(BIN)/python -m pytest tests/fleet --many-kills

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py src/recast/execution/native.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,test]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
