CONFIG ?= config.yaml
CORES ?= all
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-browser test-slurm test-slurm-all test-faults check docs schema

help: ## print these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand --tabs=16

setup: .venv/installed ## make the virtual environment .venv; every other target does so at need

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

run: setup ## run the default study and write its report (CONFIG=configs/smoke.yaml: another study)
	$(BIN)/snakemake report --cores $(CORES) --configfile $(CONFIG)

test: setup check ## run the checks and all tests but those of SLURM and of faults
	$(BIN)/python -m pytest

test-fast: setup ## run the unit and oracle tests, under three minutes on two cores
	$(BIN)/python -m pytest -m '(unit or oracle) and not gpu and not real_model'

test-browser: setup ## open the explorer in Chromium (Debian: apt-get install chromium chromium-driver), and try it
	$(BIN)/python -m pytest tests/browser --numprocesses 0

test-slurm: setup ## run the smoke study, and jobs that fail, through a real one-machine SLURM (Debian or Ubuntu, as root)
	NODE_GPUS=2 NODE_CPUS=8 timeout --kill-after=60 1800 bash tests/slurm/one_node_slurm.sh \
	  $(BIN)/python -m pytest tests/slurm -m 'slurm and not slurm_slow'

test-slurm-all: setup ## the same with an accounting database, and the tests that take minutes or stop the node
	NODE_GPUS=2 NODE_CPUS=8 ACCOUNTING=yes timeout --kill-after=60 3600 bash tests/slurm/one_node_slurm.sh \
	  $(BIN)/python -m pytest tests/slurm -m slurm --numprocesses 0

test-faults: setup ## kill, interrupt, starve and misplace a small study; some of it as root
	$(BIN)/python -m pytest tests/faults -m faults

check: setup ## check style, types and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile rules
	$(BIN)/mypy
	$(BIN)/codespell

docs: setup ## build the documentation to build/site; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "documentation: build/site/index.html"

schema: setup ## write configs/study.schema.json anew
	cd workflow_scripts && ../$(BIN)/python -c 'import json; from circuitdrift.config.study import StudyConfig; print(json.dumps(StudyConfig.model_json_schema(), indent=2))' > ../configs/study.schema.json
