# The same commands for people and for CI; `make` alone lists them.
# Needs GNU Make 3.81 (macOS has it) and Python 3.11, 3.12 or 3.13. Everything is installed into .venv, once.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo "$$python" && break; done)

BIN := .venv/bin
OLDEST := .venv-oldest
BACKENDS := jax tensorflow torch
EXTRAS := demo dev ray $(BACKENDS)

TF_CPP_MIN_LOG_LEVEL ?= 3
PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export TF_CPP_MIN_LOG_LEVEL PIP_DISABLE_PIP_VERSION_CHECK

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-jax test-tensorflow test-torch test-all test-oldest check format bench docs-pictures clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed-demo .venv/.installed-tensorflow ## Fine-tune a real backbone and draw what happened (DEMO_ARGS=...)
	KERAS_BACKEND=tensorflow $(BIN)/python examples/demo.py $(DEMO_ARGS)

test: test-jax ## Run the tests on JAX (FAST=1 leaves out the slow ones; PYTEST_ARGS=...)

# Tests marked `once` touch no backend: JAX alone runs them.
test-jax: LEFT_OUT = $(if $(FAST),slow)
test-tensorflow test-torch: LEFT_OUT = once$(if $(FAST), or slow)

test-jax test-tensorflow test-torch: test-%: .venv/.installed-dev .venv/.installed-%
	KERAS_BACKEND=$* $(BIN)/python -m pytest -m "$(if $(LEFT_OUT),not ($(LEFT_OUT)))" $(PYTEST_ARGS)

test-tensorflow: ## Run the tests on TensorFlow, less those that touch no backend
test-torch: ## Run the tests on PyTorch, likewise
test-all: $(BACKENDS:%=test-%) ## Run the tests on the three backends in turn

test-oldest: $(OLDEST)/.installed ## Run the fast tests with the oldest supported versions (Python 3.11 or 3.12)
	KERAS_BACKEND=jax $(OLDEST)/bin/python -m pytest -m "not slow" $(PYTEST_ARGS)

check: .venv/.installed-dev $(BACKENDS:%=.venv/.installed-%) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed-dev ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A script names the backends it wants in a line `# backends: jax tensorflow torch`; without one it runs on JAX.
define run-scripts
	@set -e; for script in $(1); do \
		backends=$$(sed -n 's/^# backends: *//p' "$$script"); \
		for backend in $${backends:-jax}; do \
			echo "== $$script on $$backend"; KERAS_BACKEND=$$backend $(BIN)/python "$$script"; \
		done; \
	done
endef

bench: .venv/.installed-dev $(BACKENDS:%=.venv/.installed-%) ## Measure the claims (BENCH=benchmarks/one.py)
	$(call run-scripts,$(or $(BENCH),$(shell grep -ls __main__ benchmarks/*.py)))

docs-pictures: .venv/.installed-demo $(BACKENDS:%=.venv/.installed-%) ## Draw the pictures of the README and the docs
	$(call run-scripts,$(shell grep -ls __main__ scripts/*.py))

clean: ## Remove caches and built files; the virtual environments stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks examples scripts -name __pycache__ -prune -exec rm -rf {} +

# What is installed is remembered by a stamp each extra, so a second call is instant and adds only what is missing.
# The target is bin/pip: a venv that Debian could not finish for want of python3-venv has a bin/python.

.venv/bin/pip $(OLDEST)/bin/pip:
	@test -n "$(PYTHON)" || { echo "Kadence needs Python 3.11, 3.12 or 3.13 with its venv module, and found none." \
		"If you have one elsewhere: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(@:/bin/pip=)

$(EXTRAS:%=.venv/.installed-%): .venv/.installed-%: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing kadence[$*] into .venv; the first time takes a few minutes."
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[$*]"
	@touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt | $(OLDEST)/bin/pip
	@echo "Installing the oldest supported versions into $(OLDEST)."
	@$(OLDEST)/bin/python -m pip install -qq --constraint constraints-oldest.txt --editable ".[dev,jax]"
	@touch $@
