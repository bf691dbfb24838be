# What each target does: make help
.DEFAULT_GOAL := help
.PHONY: help demo test lint prepare docs clean
SHELL := /bin/sh

# The newest-named Python 3.10+ that can make virtual environments; or say make PYTHON=/path/to/python3
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python3.10 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then command -v $$p; break; fi; done)

BIN := .venv/bin
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"; export PATH;
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export MPLBACKEND ?= Agg

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed ## Install into .venv, then restore the example photographs into demo/
	@$(BIN)/dmgn demo -o demo

test: .venv/.installed-dev ## Install the development extras, then lint, run the notebooks, the sync checks and pytest
	@$(IN_VENV) sh tools/run_tests.sh

lint: .venv/.installed-dev ## Look for mistakes without running anything: ruff, mypy for the types, import-linter for circles
	@$(IN_VENV) failed=0; for check in "ruff check" mypy lint-imports; do $$check || failed=1; done; [ $$failed = 0 ]

prepare: .venv/.installed-dev ## Bring dmgn/, the notebooks and README.md up to date with the notebooks
	@$(IN_VENV) nbdev_export && nbdev_clean && python tools/make_readme.py

docs: .venv/.installed-dev ## Build the site into _docs/, offline
	@$(IN_VENV) python tools/make_docs.py

clean: ## Remove what building and running leaves behind (.venv and runs/ stay)
	rm -rf _proc _docs demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find dmgn nbs tests tools -name __pycache__ -prune -exec rm -rf {} +

# A usable .venv, or one clear line. A .venv left unfinished is completed, a broken one is made anew.
define make_venv
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.10 or newer with venv found: install one (on Debian: apt install python3-venv), or say make PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
endef

.venv/.installed: settings.ini setup.py
	$(make_venv)
	@echo "Installing dmgn into .venv; PyTorch is large, the first time takes some minutes"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/.installed-dev: settings.ini setup.py
	$(make_venv)
	@echo "Installing dmgn and its development extras into .venv; PyTorch is large, the first time takes some minutes"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch .venv/.installed $@
