# Everything a person or a machine runs here. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' tests/requirements.txt)
COMPILE := $(BIN)/uv pip compile -q pyproject.toml --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11
PYTEST := $(BIN)/python -m pytest -q
CLUSTER := $(BIN)/python -m tests.cluster

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

$(VENV)/.done: tests/requirements.txt pyproject.toml
	@python3 -c 'import ensurepip' 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv; }
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --require-hashes --compile-bytecode tests/requirements.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	touch $@

.PHONY: venv
venv: $(VENV)/.done  ## the Python environment of everything below

.PHONY: demo demo-down
demo: venv  ## a cluster, the chart, a trained model, predictions, and what it does when things go wrong
	$(BIN)/python -m examples.digits.demo

demo-down: venv  ## end the cluster and leave nothing behind but the cache
	$(CLUSTER) down

.PHONY: lint unit unit-operator unit-runtime system contract cluster test soak
lint: venv  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Side by side, as neither has to import what the other tests: half of all that two workers would do is importing.
unit: venv  ## tests without a cluster, a network or a server: seconds
	$(MAKE) --no-print-directory -j 2 --output-sync=target unit-operator unit-runtime

unit-operator: venv
	$(PYTEST) tests/unit/operator tests/unit/bench

unit-runtime: venv
	$(PYTEST) tests/unit/runtime

system: venv  ## the operator against an API server that misbehaves, the runtime over real sockets, the examples' training
	$(PYTEST) -n 2 --dist loadfile tests/system

contract: venv  ## CRD, chart, permissions, import layers
	$(PYTEST) tests/contract

cluster: venv  ## tests on a real Kubernetes cluster, which is brought up and stays
	$(CLUSTER) up
	$(PYTEST) tests/cluster -m "not soak"

WITHOUT_CLUSTER := tests/unit tests/contract tests/system -m "not soak"
WITH_CLUSTER := tests/cluster -m "not soak"

# A test that fails on two busy cores is run once more, by itself; both outcomes are printed, and a test that fails
# twice fails.
test: venv lint  ## every test; in the end the cluster goes, and the machine has to be as before
	$(PYTEST) -n 2 --dist loadfile $(WITHOUT_CLUSTER) --durations=25 \
	  || { test $$? = 1 && $(PYTEST) $(WITHOUT_CLUSTER) --last-failed --last-failed-no-failures=none; }
	$(CLUSTER) up
	$(PYTEST) $(WITH_CLUSTER) --durations=25 \
	  || { test $$? = 1 && $(PYTEST) $(WITH_CLUSTER) --last-failed --last-failed-no-failures=none; }
	$(CLUSTER) down --check

soak: venv  ## the full counts of the cluster tests: 20 kills, 100 rolling updates
	$(CLUSTER) up
	EVENKEEL_SOAK=1 $(PYTEST) tests/cluster -m "soak"

.PHONY: soak-runtime
soak-runtime: venv  ## half an hour of requests to one replica, whose memory has to stay flat, and a hundred drains
	EVENKEEL_SOAK=1 $(PYTEST) -s tests/system/runtime/test_soak.py

.PHONY: gpu
gpu: venv  ## the runtime on this machine's GPU; no other test needs one
	$(PYTEST) tests/gpu

.PHONY: fuzz
fuzz: venv  ## a million mutated requests and ten thousand mutated model files
	EVENKEEL_FUZZ=full $(PYTEST) -s tests/system/runtime/test_fuzz.py

.PHONY: bench-runtime bench-gpu bench-start bench-fetch bench-canary bench-operator bench-poll bench-feedback bench-control bench-trace bench-verdict
bench-runtime: venv  ## the runtime against raw torch and other Python servers; last line JSON
	$(BIN)/python -m tests.bench.runtime

bench-gpu: venv  ## calls of a model on this machine's GPU, in every way, and served; last line JSON
	$(BIN)/python -m tests.bench.runtime.gpu

bench-start: venv  ## what a start of the runtime takes beside torch's import; last line JSON
	$(BIN)/python -m tests.bench.runtime.start

bench-fetch: venv  ## a large file in parts against one stream, by the length of the parts; last line JSON
	$(BIN)/python -m tests.bench.runtime.fetching

bench-canary: venv  ## what a canary costs the stable replica, per request; last line JSON
	$(BIN)/python -m tests.bench.runtime.canary

bench-verdict: venv  ## error rates and power of canary verdicts over thousands of simulated rollouts; last line JSON
	$(BIN)/python -m tests.bench.verdict

bench-operator: venv  ## 200 ModelDeployments against plain Jobs and ReplicaSets on the same cluster; last line JSON
	$(CLUSTER) up
	$(BIN)/python -m tests.bench.operator

bench-poll: venv  ## a thousand ModelDeployments followed by their latency: CPU and delay of decisions; last line JSON
	$(BIN)/python -m tests.bench.poll

TRACES ?= $(EVENKEEL_TRACES)
bench-control: venv  ## the scaling law beside other autoscalers, on the CSV files in the folder TRACES; last line JSON
	$(BIN)/python -m tests.bench.control $(TRACES)

bench-trace: venv  ## half an hour of a trace in the folder TRACES, on pods of the cluster, then under an HPA; last line JSON
	$(CLUSTER) up
	EVENKEEL_TRACES=$(TRACES) $(BIN)/python -m tests.bench.trace

bench-feedback: venv  ## labels per second of the feedback service, killed again and again; last line JSON
	$(BIN)/python -m tests.bench.feedback

.PHONY: requirements crd formats-table
requirements: venv  ## resolve the pinned lists again
	$(COMPILE) --extra operator -o operator/requirements.txt
	$(COMPILE) --extra runtime -o runtime/requirements.txt
	$(COMPILE) --all-extras --group dev --group examples -o tests/requirements.txt
	$(COMPILE) --group kserve -o tests/system/runtime/kserve-requirements.txt

crd: venv  ## write the CRD that the models describe
	$(BIN)/python -m evenkeel_operator.api.crd --write

formats-table: venv  ## write what every format answered by every protocol into the README
	EVENKEEL_WRITE=1 $(PYTEST) tests/system/runtime/test_formats.py
