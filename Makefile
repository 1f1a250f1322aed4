# On a fresh machine run `make demo` or `make test`. `make evidence` measures docs/project/evidence/
# again, which takes hours.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
HEMIX := $(VENV)/bin/hemix
STAMP := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2 --dist worksteal

.PHONY: setup demo test test-slow check docs format evidence experiment clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(HEMIX) demo --out runs/demo

# Two workers: one has its own core, and the other computes while one waits
test: setup
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: setup
	$(VENV)/bin/mkdocs build --quiet --config-file docs_site/mkdocs.yml

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# -- evidence: see docs/project/evidence.md; an interrupted run continues ------------------------

EVIDENCE := runs/evidence
KUAIRAND ?= ../shared/data/kuairand_pure
KUAIRAND_ORIGINS := $(addprefix $(EVIDENCE)/kuairand/,origin4 origin2 origin0)
CITY := $(EVIDENCE)/city
# The studies use the points that an earlier search of six chose; SEARCH=default searches again
SEARCH ?= chosen
KUAIRAND_SEARCH := $(if $(filter chosen,$(SEARCH)),docs/project/evidence/kuairand/points.yaml,$(SEARCH))
CITY_SEARCH := $(if $(filter chosen,$(SEARCH)),docs/project/evidence/city/points.yaml,$(SEARCH) --search-data $(CITY)/small)

$(EVIDENCE)/kuairand/logs: | setup
	$(HEMIX) import kuairand $(KUAIRAND) --out $@

$(EVIDENCE)/kuairand/origin0: | $(EVIDENCE)/kuairand/logs
	$(HEMIX) prepare $(EVIDENCE)/kuairand/logs --out $@

$(EVIDENCE)/kuairand/origin2 $(EVIDENCE)/kuairand/origin4: $(EVIDENCE)/kuairand/origin%: | $(EVIDENCE)/kuairand/logs
	$(HEMIX) prepare $(EVIDENCE)/kuairand/logs --out $@ --shift-days -$*

$(CITY)/logs: | setup
	$(HEMIX) simulate --out $@ --users 3230 --days 8 --seed 0

$(CITY)/small-logs: | setup
	$(HEMIX) simulate --out $@ --users 1000 --days 8 --seed 0

$(CITY)/data: | $(CITY)/logs
	$(HEMIX) prepare $(CITY)/logs --out $@

$(CITY)/small: | $(CITY)/small-logs
	$(HEMIX) prepare $(CITY)/small-logs --out $@

evidence: $(KUAIRAND_ORIGINS) $(CITY)/data $(CITY)/small
	$(HEMIX) compare $(addprefix --data ,$(KUAIRAND_ORIGINS)) --out $(EVIDENCE)/kuairand/compare --search $(KUAIRAND_SEARCH) --seeds 3 --evaluate-test
	$(HEMIX) compare --data $(CITY)/data --out $(CITY)/compare --search $(CITY_SEARCH) --seeds 3 --evaluate-test
	$(HEMIX) ablate --data $(CITY)/data --out $(CITY)/ablate --seeds 3 --evaluate-test
	$(HEMIX) scale --data $(CITY)/data --out $(CITY)/scale --seeds 2 --evaluate-test
	mkdir -p docs/project/evidence/kuairand docs/project/evidence/city
	cp $(EVIDENCE)/kuairand/compare/compare.json docs/project/evidence/kuairand/
	cp $(CITY)/compare/compare.json $(CITY)/ablate/ablate.json $(CITY)/scale/scale.json docs/project/evidence/city/

# Live users: trains four arms on the city's logs and serves them; all 3,230 users live two days
# with each. An interrupted run continues.
experiment: $(CITY)/data
	$(VENV)/bin/python examples/experiment.py --out $(EVIDENCE)/experiment --logs $(CITY)/logs --data $(CITY)/data \
	    --points docs/project/evidence/city/points.yaml --users 3230 --days 2
	cp $(EVIDENCE)/experiment/experiment/experiment.json docs/project/evidence/

clean:
	rm -rf $(VENV) build dist *.egg-info
