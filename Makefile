# Everything sets itself up in .venv; nothing needs to be exported. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

export NO_ALBUMENTATIONS_UPDATE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two processes of one compute thread each: more would fight over two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint bench constraints clean status
.PHONY: reproduce-table1 reproduce-table4 reproduce-table6 reproduce-figure5 reproduce-shapes

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  reproduce-... take DATA_DIR=FOLDER SEEDS=$(SEEDS) DEVICES=1 LAUNCHER=local|slurm|ray DATA=wider|shapes"
	@echo "  and WORDS='...' for every run, such as WORDS='num_workers=8 data.cache=true'"

setup: $(READY) ## install the exact pinned versions into .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed and $(PYTHON) is $$($(PYTHON) --version 2>&1); say make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing pinned versions into $(VENV), some minutes the first time"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## train three rows on the embedded data, print their table, draw their Figure 5 (under 10 minutes on 2 cores)
	$(BIN)/vac train -m '+demo=glob(*)'
	$(BIN)/vac report runs/demo "rows=[Tiny+f,'Tiny+ACf_lambda=0.3']"

SEEDS ?= 0,1,2
LAUNCHER ?= local
reproduce = $(BIN)/vac reproduce $(1) 'seeds=[$(SEEDS)]' 'launcher=$(LAUNCHER)' $(if $(DATA),'data=$(DATA)') \
  $(if $(DATA_DIR),'data_dir=$(DATA_DIR)') $(if $(DEVICES),'devices=$(DEVICES)') $(if $(WORDS),-- $(WORDS))

reproduce-table1: $(READY) ## all 16 rows of Table 1, WIDER Attribute; interrupt it, and say it again to go on
	$(call reproduce,table1)

reproduce-table4: $(READY) ## Table 4, other methods on WIDER Attribute
	$(call reproduce,table4)

reproduce-table6: $(READY) ## Table 6, MS-COCO
	$(call reproduce,table6)

reproduce-figure5: $(READY) ## Figure 5, heatmaps of four rows of Table 1
	$(call reproduce,figure5)

reproduce-shapes: $(READY) ## the evidence on the embedded data
	$(call reproduce,shapes)

status: $(READY) ## how far the runs are, from another terminal
	$(BIN)/vac status

test: $(READY) lint ## lint and every test (under 15 minutes on 2 cores)
	$(PYTEST) --dist worksteal

test-fast: $(READY) ## the tests to run while editing (under 90 seconds)
	$(PYTEST) --dist loadfile -m "not slow"

lint: $(READY) ## ruff, mypy, and the walls between modules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY) ## speed and memory against named rivals, into benchmarks/results/ (under 15 minutes on 2 cores)
	$(BIN)/python benchmarks

constraints: $(READY) ## pin today's versions anew in constraints.txt
	$(BIN)/uv pip compile --universal --python-version 3.10 --all-extras --no-annotate --no-header --no-emit-index-url \
	  --upgrade --quiet pyproject.toml --output-file constraints.txt

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
