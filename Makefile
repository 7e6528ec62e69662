# make run     set up at need, run the default study, write its report       (CONFIG=configs/smoke.yaml: another study)
# make test    set up at need, run the tests and the checks of style and types
# make test-slurm    the smoke study through a real one-machine SLURM (Debian, as root)
# make setup   the virtual environment alone
CONFIG ?= config.yaml
CORES ?= all
PYTHON ?= python3
BIN := .venv/bin
STUDY = $(shell $(BIN)/python -c 'import sys, yaml; print((yaml.safe_load(open(sys.argv[1])) or {}).get("study", "embedded"))' $(CONFIG))

.PHONY: setup run test test-slurm check schema

setup: .venv/installed

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

run: setup
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)
	$(BIN)/snakemake --configfile $(CONFIG) --report results/$(STUDY)/report.html
	@echo "figures: results/$(STUDY)/figures   tables: results/$(STUDY)/tables   report: results/$(STUDY)/report.html"

test: setup check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

test-slurm: setup
	timeout --kill-after=60 1800 bash tests/slurm/one_node_slurm.sh $(BIN)/python -m pytest tests/slurm -m slurm

schema: setup
	cd workflow_scripts && ../$(BIN)/python -c 'import json; from circuitdrift.config.study import StudyConfig; print(json.dumps(StudyConfig.model_json_schema(), indent=2))' > ../configs/study.schema.json
