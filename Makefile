# Needs make and Python 3.11 to 3.13. `make demo` and `make test` do everything from nothing.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
# An index with a smaller torch, such as https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Data sets, trained weights and published measurements for benchmarks and `make profiles`.
SHARED ?= $(or $(EDGEPRUNE_SHARED),../shared)
MEASUREMENTS ?= $(SHARED)/measurements
# The .tflite files that bench-mcu counts.
MODELS ?= $(SHARED)/data/mlperf_tiny_models
# Options of the benchmarks, such as --seeds 3 or --fresh.
BENCH_ARGS ?=
# What bench-zoo prunes, and whether beside the peer. The networks come from EDGEPRUNE_TORCHVISION, else from PEER_ENV.
LIST ?= $(SHARED)/zoo/models.csv
PEER ?= 1
PEER_ENV := .venv-peer
PEER_READY := $(PEER_ENV)/.ready
PYTEST_ARGS ?=
JOBS ?= 2

BIN := .venv/bin
READY := .venv/.edgeprune-ready
# One thread per test process: they run side by side.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: help setup demo test test-slow lint types check docs profiles demo-weights clean \
	bench-fit bench-host bench-loop bench-calibration bench-prune bench-solver bench-zoo bench-device-models \
	bench-mcu bench-mcu-fit bench-mcu-model bench-schedule bench-emulator bench-int8 profiles-mcu

help:
	@echo "make demo          fit the built-in model to 20 ms on a Raspberry Pi 4"
	@echo "make test          the tests (test-slow: those that take minutes)"
	@echo "make check         lint, types and tests"
	@echo "make setup         only the environment, in .venv"
	@echo "make docs          docs/cli.md from the program"
	@echo "make profiles      the device models from the published measurements"
	@echo "make profiles-mcu  the device models of the C library: counted anew on emulated cores, then fitted"
	@echo "make demo-weights  train the demo's network again"
	@echo "make bench-fit     ResNet-20 on CIFAR-10 at half its latency, beside uniform and random widths"
	@echo "make bench-host    half the dense latency on this machine, five seeds, and a RAM limit"
	@echo "make bench-loop    twenty latency budgets over three small nets on this machine: met, how close, in how many rounds"
	@echo "make bench-calibration  calibrate this machine, then foretell random widths of two networks"
	@echo "make bench-prune   five torchvision networks: exactness and time of pruning"
	@echo "make bench-solver  six networks: time and gap of the budgeted solve"
	@echo "make bench-zoo     LIST=FILE: how many public models are pruned exactly, beside torch-pruning (PEER=0: alone)"
	@echo "make bench-device-models  MEASUREMENTS=DIR: device models on what they have not seen, and as shipped"
	@echo "make bench-mcu     MODELS=DIR: int8 networks as C on emulated microcontrollers: instructions, memory, outputs"
	@echo "make bench-mcu-fit  ResNet-20 on CIFAR-10 to a microcontroller's latency, RAM and flash at once"
	@echo "make bench-mcu-model  MODELS=DIR: what the models of the C library foretell, beside what is executed"
	@echo "make bench-emulator  MEASUREMENTS=DIR: networks run by an emulated Raspberry Pi 4's LiteRT, counted, latencies foretold"
	@echo "make bench-int8    four networks as int8 ONNX, TFLite and OpenVINO: what is lost, plain and after the ladder's steps"
	@echo "make bench-schedule  ResNet-20 on CIFAR-10 pruned at once and in stages, three seeds"
	@echo "make clean         caches and build outputs; runs/ and .venv stay"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 with venv found"; \
		echo "hint: install one (Debian: apt install python3 python3-venv) or run make PYTHON=/path/to/python3"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[all,dev]"
	touch $@

demo: $(READY)
	$(BIN)/edgeprune fit --target rpi4 --latency 20ms

test: $(READY)
	$(TEST) -n $(JOBS) -m "not slow"

test-slow: $(READY)
	$(TEST) -m slow

lint: $(READY)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

types: $(READY)
	$(BIN)/python -m mypy

check: lint types test

docs: $(READY)
	$(BIN)/python -m tools.cli_reference

profiles: $(READY)
	$(BIN)/python -m tools.fit_profiles --measurements $(MEASUREMENTS)

# Counting needs arm-none-eabi-gcc; the same compiler and kernels give the same bytes.
profiles-mcu: $(READY)
	$(BIN)/python -m tools.kernel_counts
	$(BIN)/python -m tools.kernel_laws

demo-weights: $(READY)
	$(BIN)/python -m tools.train_demo

bench-fit bench-host bench-loop bench-calibration bench-prune bench-solver bench-schedule bench-int8 bench-mcu-fit: bench-%: $(READY)
	EDGEPRUNE_SHARED=$(SHARED) $(BIN)/python -m bench.$(subst -,_,$*) $(BENCH_ARGS)
	$(BIN)/python -m bench.tables

# The folders go by variable, so that the command kept with the figures names no place of this machine.
bench-device-models: $(READY)
	EDGEPRUNE_MEASUREMENTS=$(abspath $(MEASUREMENTS)) $(BIN)/python -m bench.device_models $(BENCH_ARGS)
	$(BIN)/python -m bench.tables

# Needs `edgeprune emulate setup rpi4`. Its counts are what the prices of an emulated board are fitted on.
bench-emulator: $(READY)
	EDGEPRUNE_MEASUREMENTS=$(abspath $(MEASUREMENTS)) $(BIN)/python -m bench.emulator $(BENCH_ARGS)
	$(BIN)/python -m tools.counted_fitting --measurements $(MEASUREMENTS)
	$(BIN)/python -m bench.tables

bench-mcu: $(READY)
	EDGEPRUNE_MODELS=$(abspath $(MODELS)) $(BIN)/python -m bench.mcu $(BENCH_ARGS)
	$(BIN)/python -m bench.tables

bench-mcu-model: $(READY)
	EDGEPRUNE_MODELS=$(abspath $(MODELS)) $(BIN)/python -m bench.mcu_model $(BENCH_ARGS)
	$(BIN)/python -m bench.tables

# An environment of its own that borrows torch from .venv, so that both tools run on the same one.
$(PEER_READY): $(READY) Makefile
	$(BIN)/python -m venv --without-pip $(PEER_ENV)
	$(BIN)/python -m pip --disable-pip-version-check --python $(PEER_ENV)/bin/python install --no-deps \
		torchvision==0.28.0 timm==1.0.31 torch-pruning==1.6.1
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(PEER_ENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth
	touch $@

bench-zoo: $(READY) $(if $(and $(filter 0,$(PEER)),$(EDGEPRUNE_TORCHVISION)),,$(PEER_READY))
	EDGEPRUNE_TORCHVISION=$${EDGEPRUNE_TORCHVISION:-$$(echo $(PEER_ENV)/lib/python*/site-packages)} \
		$(BIN)/python -m bench.zoo --list $(LIST) --peer $(PEER) $(BENCH_ARGS)
	$(BIN)/python -m bench.tables

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
