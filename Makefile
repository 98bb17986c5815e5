# Two commands for a fresh machine: make demo, make test. Both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test faults hub-faults fuzz fleet recipes keep-rules loaders frameworks bench lint clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest

# Every system call of a conversion fails once, and is once the last one: some minutes.
faults: $(INSTALLED)
	$(BIN)/python -m pytest tests/faults --every-point

# Every request of a push fails once, in every way, by LFS and by xet: some minutes.
hub-faults: $(INSTALLED)
	$(BIN)/python -m pytest tests/hub/test_faults.py --every-request

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
	$(BIN)/python -m pytest tests/fleet/test_workers.py --many-kills

# docs/cluster.md, carried out on hosts that are namespaces of this machine: two minutes. Debian's
# iproute2, openssh-server, slurmctld, slurmd, slurm-client, munge and bindfs; what lacks them is
# skipped.
recipes: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[recipes]'
	$(BIN)/python -m pytest tests/recipes --carry-out -rs

# What transformers 4.57 and 4.44 load, asked of them: a minute, and two downloads.
loaders: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/transformers-4.57 \
		transformers==4.57.6 huggingface_hub==0.36.0 tokenizers==0.22.1
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/transformers-4.44 \
		transformers==4.44.2 huggingface_hub==0.24.7 tokenizers==0.19.1
	RECAST_TRANSFORMERS_4_57=$(VENV)/transformers-4.57 \
	RECAST_TRANSFORMERS_4_44=$(VENV)/transformers-4.44 $(BIN)/python -m pytest tests/loaders

# What TRL and DeepSpeed save, asked of them: a minute, and downloads of 100 MB. DeepSpeed is used
# as it is unpacked: gathering a checkpoint needs no part of it that would have to be built.
FRAMEWORKS := $(VENV)/frameworks
frameworks: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(FRAMEWORKS) trl==1.16.0 \
		datasets==5.2.0 dill==0.4.1 httpcore==1.0.9 httpx==0.28.1 multiprocess==0.70.19 \
		pandas==3.1.1 pyarrow==26.0.1 python-dateutil==4.0.0 six==1.17.0 xxhash==4.1.0 \
		einops==0.8.2 hjson==3.1.0 py-cpuinfo==9.0.0
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: --dest $(FRAMEWORKS) \
		deepspeed==0.19.8
	tar -xzf $(FRAMEWORKS)/deepspeed-0.19.8.tar.gz -C $(FRAMEWORKS) --strip-components 1 \
		deepspeed-0.19.8/deepspeed
	PYTHONPATH=$(FRAMEWORKS) $(BIN)/python -m pytest tests/frameworks

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py src/recast/execution/values/native.c src/recast/execution/values/look.h
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,test]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
