# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test edge-test check soak bench sample-model accuracy prove-exhaustive format clean

demo: .venv/base
	@mkdir -p build
	$(BIN)/toolkit batch-predict samples/response_times.parquet --model samples/model --output build/response_times.predictions.parquet --overwrite
	@$(BIN)/python samples/compare.py build/response_times.predictions.parquet

test: .venv/dev
	$(BIN)/python -m pytest -m "not soak and not edge"

# On emulated targets: what they are made of is downloaded once and kept in ~/.cache/softplus-toolkit.
edge-test: .venv/dev
	$(BIN)/python -m pytest -m edge tests/edge --timeout=900 -rs

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not soak and not edge"

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: .venv/dev
	$(BIN)/python -m pytest -m "soak and not edge" --timeout=7200

bench: .venv/bench
	$(BIN)/python -m tests.benchmarks

# Half an hour on 2 cores.
sample-model: .venv/dev
	@mkdir -p build
	rm -rf build/sample-model
	$(BIN)/toolkit train --simulator samples/diffusion.py:simulate --exchangeable-rows --datasets-per-epoch 1000000 --epochs 16 --calibration-count 500 --output build/sample-model
	$(BIN)/toolkit simulate samples/diffusion.py:simulate --count 12000 --seed 6000 build/calibration.parquet
	$(BIN)/toolkit export --model build/sample-model --format all --precision all --calibration build/calibration.parquet
	$(BIN)/toolkit verify --model build/sample-model
	rm -rf samples/model && mv build/sample-model samples/model
	$(BIN)/toolkit batch-predict samples/response_times.parquet --model samples/model --output build/response_times.predictions.parquet --overwrite
	$(BIN)/python samples/compare.py build/response_times.predictions.parquet --plot samples/compare.png

# How close networks come to what the data allow: the sample model, and one trained for each of the other simulators.
accuracy: .venv/dev
	$(BIN)/python -m tests.benchmarks.accuracy --model samples/model
	rm -rf build/psychometric build/decay
	$(BIN)/toolkit train --simulator samples/psychometric.py:simulate --exchangeable-rows --datasets-per-epoch 250000 --epochs 8 --output build/psychometric
	$(BIN)/python -m tests.benchmarks.accuracy --model build/psychometric/model.keras
	$(BIN)/toolkit train --simulator samples/decay.py:simulate --datasets-per-epoch 500000 --epochs 8 --output build/decay
	$(BIN)/python -m tests.benchmarks.accuracy --model build/decay/model.keras

# Every float there is through the head of every file: see tests/prove_exhaustive.py.
prove-exhaustive: .venv/dev
	$(BIN)/python tests/prove_exhaustive.py

clean:
	rm -rf .venv build

# Installed again whenever what is asked for changes. The marker file is made last, so an interrupted install is repeated.
.venv/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/dev: .venv/base
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/bench: .venv/dev
	$(PIP) --editable '.[bench]'
	@touch $@
