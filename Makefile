# make repro     install into .venv, run FuzzyCLIP's pipeline, print the table and where to look
# make detector FROM=FOLDER   a detector of OpenAI's CLIP, trained on the VisA archive in FOLDER
# make methods   run every other method of the paper's tables too, and record them
# make pictures  README's and the docs' pictures from what `make repro` made; needs Chromium
# make test      install into .venv, lint, types, quick tests; WORKERS=8 on a larger machine
# make test-all  all tests: also Ray, servers, browsers, ViT-L, whole experiments, more examples;
#                EXAMPLES=new draws others every time
# make bench     a line a measurement: name, ratio, goal; an hour on two cores
# make gpu       a check of one GPU, five minutes: docs/scale.md's table; tiny sizes without one
# make sbom      what is installed, as CycloneDX: sbom.json; docs/trust.md
# make audit     known vulnerabilities of the pinned packages; asks pypi.org
# make licences  the licence of each installed package
PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
READY := $(VENV)/.ready
# Tools that look at the environment and are no part of it.
TRUST := .trust
# DVC starts `python -m stages.<name>`: let it find the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

.PHONY: repro detector weights methods pictures test test-all bench gpu sbom audit licences lint types setup clean

# The committed dvc.lock counts `track` as done, but a fresh clone has no MLflow store yet. What is
# recorded already is not recorded again; the last lines say how to look at the runs. DVC makes names
# of the keys in params.yaml before its first stage can look at them.
repro: $(READY)
	python -m stages.check
	dvc repro track
	@echo
	@cat metrics/tables/summary.md
	@echo
	@echo "Tables:       metrics/tables"
	@echo "Pictures:     report"
	@echo "Page:         page/index.html"
	@echo "Experiments:  source $(VENV)/bin/activate, and in MLflow:"
	@python -m stages.track

# The stages of one auxiliary set alone, so that no other dataset is asked for. SET='-S key=value' adds
# parameters, AUXILIARY=NAME takes another set.
AUXILIARY := visa
SET :=
ONE_SET := $(addsuffix @$(AUXILIARY),download index features auxiliary csp efa rpl package)
WEIGHTS := ViT-L-14-336px.pt
BACK := The same command goes on from here; what it set is left in params.yaml, and goes by: \
	git checkout HEAD -- params.yaml dvc.lock metrics && dvc checkout --allow-missing

weights:
	@test -f "$(FROM)/$(WEIGHTS)" || { echo "FROM=$(FROM): no $(WEIGHTS) there. FROM=FOLDER must name the" \
		"folder with it and with the archive of $(AUXILIARY): docs/real-model.md" >&2; exit 1; }

# Quotes within quotes, since DVC reads a value with a space in no other way.
detector: weights $(READY)
	from="$$(cd "$(FROM)" && pwd)" && dvc exp run --single-item -S data.source=official \
		-S "data.archives='$$from'" -S data.download=false -S package.weights=copy \
		-S backbone=vit_l_14_336 -S "backbones.vit_l_14_336.weights='$$from/$(WEIGHTS)'" $(SET) \
		check sample $(ONE_SET) || { echo "$(BACK)" >&2; exit 1; }
	@echo "The detector: models/$(AUXILIARY)/fuzzyclip; fuzzyclip predict --model takes this folder."
	@echo "Its parameters are left in params.yaml; back to the sample: docs/real-model.md, section 3"

methods: $(READY)
	python -m stages.check
	dvc repro baselines
	python -m stages.track baselines
	@cat metrics/method_tables/averages.md

pictures: $(READY)
	python -m tools.pictures

# Whole files go to a worker, which makes their fixtures once. One thread for a worker and what it
# starts: more would wait for one another. Files in folders named slow belong to `make test-all`.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint types
	$(PYTEST) --ignore-glob '*/slow'

# With the tools of `make sbom`, which are tested too. A profile of tests/support/properties.py.
EXAMPLES := all
test-all: lint types $(TRUST)/.ready
	$(PYTEST) --hypothesis-profile $(EXAMPLES)

bench: $(READY)
	python benchmarks/pixel_metrics.py
	python benchmarks/index_images.py
	python benchmarks/encoding.py
	python benchmarks/efa_training.py
	python benchmarks/rpl_training.py
	python benchmarks/inference.py
	python benchmarks/export.py
	python benchmarks/engines.py
	python benchmarks/methods.py
	python benchmarks/memory.py
	python benchmarks/scale.py
	python benchmarks/commands.py

gpu: $(READY)
	@python benchmarks/gpu.py

sbom: $(READY) $(TRUST)/.ready
	$(TRUST)/bin/python -m tools.supply.sbom $(VENV)/bin/python sbom.json

# make audit SERVICE=osv asks osv.dev.
SERVICE := pypi
audit: $(TRUST)/.ready
	@$(TRUST)/bin/python -m tools.supply.audit constraints.txt --vulnerability-service $(SERVICE)

licences: $(READY)
	@python -m tools.supply.licences

lint: $(READY)
	ruff check .
	ruff format --check .

types: $(READY)
	mypy

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FuzzyCLIP needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

$(TRUST)/.ready: constraints.txt
	$(PYTHON) -m venv $(TRUST)
	$(TRUST)/bin/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom pip-audit || \
		{ echo "no network? $(TRUST) takes cyclonedx-bom and pip-audit from pip's index; run it" \
		"where that is reachable" >&2; exit 1; }
	touch $(TRUST)/.ready

clean:
	rm -rf $(VENV) $(TRUST) sbom.json scratch timing build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
