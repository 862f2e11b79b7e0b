# SPDX-License-Identifier: Apache-2.0
# 'make demo' and 'make test' set up .venv on their own; 'make help' lists the rest.

PYTHON ?= python3
# Input of the demo: empty is the live simulator, else a file or folder of X-ray images.
SOURCE ?=
# Frames a second; 0 is the source's own, or fewer where this machine does not segment so many.
RATE ?= 0
# Folder to make for an MCAP recording of the demo; empty: none.
RECORD ?=
# Cases of the closed loop, each in a vessel tree of its own.
SEEDS ?= 20
# Parallel test processes; each has a ROS_DOMAIN_ID of its own.
JOBS ?= 2
# Training and export of the shipped model.
# The second file names real images to draw on; without them: MODEL_CONFIG=config/finetune_wirenet.yaml
MODEL_CONFIG ?= config/finetune_wirenet.yaml config/real_backgrounds.yaml
MODEL_RUN ?= runs/wirenet
MODEL_FILE ?= fedefm_core/models/wirenet-int8.onnx
MODEL_WEIGHTS ?= fedefm_core/models/wirenet.safetensors

VENV := .venv
BIN := $(VENV)/bin
PIP := PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
EDITABLE := --no-build-isolation -e
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo navigate federate-demo test test-slow lint format model model-export clean distclean

help:
	@echo 'make demo [SOURCE=path] [RATE=hz] [RECORD=path]  300 frames through ROS 2 on this machine; results in out/demo'
	@echo 'make navigate [SEEDS=n]  steer a wire to its target in simulation, by what the nodes see; out/navigate'
	@echo 'make federate-demo       three hospitals on this machine train together by NVIDIA FLARE; one loses power'
	@echo 'make test                linters, types and the quick tests'
	@echo 'make test-slow           the tests that take long'
	@echo 'make lint                linters and types only'
	@echo 'make format              rewrite the sources to the common format'
	@echo 'make model               train, export and check the shipped model (hours)'
	@echo 'make clean               remove what was built; distclean also removes $(VENV)'

demo: $(VENV)/.has-demo
	$(BIN)/python -m fedefm_ros.demo --source "$(SOURCE)" --rate $(RATE) --record "$(RECORD)" --out out/demo

navigate: $(VENV)/.has-demo
	$(BIN)/python -m fedefm_ros.navigate --seeds $(SEEDS) --out out/navigate

federate-demo: $(VENV)/.has-federated
	$(BIN)/python -m fedefm_core.federation.flare.demo --out out/federate-demo

# Without --max-worker-restart, a worker that crashes leaves tests that nobody runs, and no end.
test: lint
	$(PYTEST) -n $(JOBS) --dist loadfile --max-worker-restart 0 -m 'not slow'

test-slow: $(VENV)/.has-test $(VENV)/.has-tensorrt-build
	$(PYTEST) -m slow

lint: $(VENV)/.has-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.has-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

model: $(VENV)/.has-test
	$(BIN)/fedefm_core finetune $(MODEL_CONFIG) --out $(MODEL_RUN) --resume
	$(MAKE) model-export

# From the trained weights: export, test, study of real images, card.
model-export: $(VENV)/.has-test
	$(BIN)/fedefm_core export $(MODEL_RUN) --out $(MODEL_FILE) --precision int8 \
	  --calibration-frames 96 --parity-frames 40 --weights $(MODEL_WEIGHTS) \
	  --keep-float encoder.0 --keep-float decoder.0 --keep-float class_head --keep-float tip_head
	rm -rf $(MODEL_RUN)/test
	$(BIN)/fedefm_core simulate --out $(MODEL_RUN)/test --count 400 --kind each --seed 20261125
	$(BIN)/fedefm_core evaluate --model $(MODEL_FILE) --images $(MODEL_RUN)/test/images \
	  --masks $(MODEL_RUN)/test/masks --json $(MODEL_RUN)/test.json
	test ! -d ../shared/data || $(BIN)/fedefm_core experiment config/experiments/real_images.yaml \
	  --model $(MODEL_FILE) --out $(MODEL_RUN)/real_images
	$(BIN)/fedefm_core describe $(MODEL_FILE) --metrics $(MODEL_RUN)/test.json \
	  --notes docs/model_failures.md --card $(MODEL_FILE:.onnx=.md) \
	  $$(test ! -f $(MODEL_RUN)/real_images/report.json || echo --study $(MODEL_RUN)/real_images/report.json)

# One environment for all: a stamp says which extras it holds, and is older than setup.py or the
# pins when they changed. The test environment holds all that the demo needs, so it stamps both.
$(VENV)/.has-demo: setup.py constraints.txt | $(VENV)/.made
	@echo 'Installing the demo into $(VENV) ...'
	$(PIP) $(EDITABLE) '.[ros]'
	@touch $@

$(VENV)/.has-test: setup.py constraints.txt | $(VENV)/.made
	@echo 'Installing the demo, training and test tools into $(VENV) ...'
	$(PIP) $(EDITABLE) '.[ros,train,federated,dev]'
	@touch $(VENV)/.has-demo $(VENV)/.has-federated $@

$(VENV)/.has-federated: setup.py constraints.txt | $(VENV)/.made
	@echo 'Installing training and NVIDIA FLARE into $(VENV) ...'
	$(PIP) $(EDITABLE) '.[train,federated]'
	@touch $@

# TensorRT-RTX builds engines on a CPU. Where its wheels cannot be had, its tests skip and say so.
$(VENV)/.has-tensorrt-build: setup.py constraints.txt | $(VENV)/.has-test
	@echo 'Installing TensorRT-RTX (96 MB to load) into $(VENV) ...'
	@$(PIP) $(EDITABLE) '.[tensorrt-build]' && touch $@ || \
	  echo 'TensorRT-RTX cannot be installed here: the tests that build engines will be skipped.'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
	  "FedEFM needs Python 3.10 or newer as '$(PYTHON)'; name another with 'make PYTHON=...'." \
	  >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
	  "The module 'venv' is missing: on Debian and Ubuntu, 'apt install python3-venv'." \
	  >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip setuptools wheel
	@touch $(VENV)/COLCON_IGNORE $@

clean:
	rm -rf build install log out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find fedefm_core fedefm_ros launch test -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
