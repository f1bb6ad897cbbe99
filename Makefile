# The commands of the course; `make help` lists them. They need no activated environment, and run from any folder with
# `make -C FOLDER`.

PYTHON ?= python3
python := .venv/bin/python
ready := .venv/ready
uv = $$(uv --version >/dev/null 2>&1 && echo uv || echo .venv/bin/uv)

# Where Python may keep no compiled files, each start of a kernel compiles torch anew, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab exercises reset env pairs test test-long benchmark experiments features notebooks lock clean anew
.SILENT:

help: ## list these commands
	awk -F ' *## *' '/^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "make %-12s %s\n", $$1, $$2 }' Makefile

lab: $(ready) ## set up what is missing and open the course in JupyterLab (PORT=8890 picks the port)
	$(python) -m helpers.classroom lab $(if $(PORT),--port "$(PORT)")

exercises: $(ready) ## make your own copies of the notebooks in my_course/, leaving those that are there
	$(python) -m helpers.classroom exercises

reset: $(ready) ## bring one copy back, keeping what you wrote beside it (NB=01)
	$(python) -m helpers.classroom reset "$(NB)"

env: $(ready) ## only set up the environment (PYTHON=python3.12 picks the Python, TORCH_BACKEND=cpu a small torch)
	echo "The environment in .venv is ready."

pairs: $(ready) ## only draw the pairs: the scenes into data/scenes, the emoji into data/emoji
	$(python) -m helpers.classroom pairs

# Everything is run, whatever fails, so that one run shows all that is wrong.
test: $(ready) pairs ## style, unit tests, every notebook, the browser (PHOTOGRAPHS=DIR adds tests on photographs)
	echo "Checking the style ..."; \
	$(python) -m ruff format --check . && $(python) -m ruff check .; style=$$?; \
	echo "Running the tests and the notebooks ..."; \
	$(python) -m pytest; tests=$$?; \
	[ $$style -eq 0 ] || echo "The style check found something: see the lines above the tests." >&2; \
	[ $$style -eq 0 ] && [ $$tests -eq 0 ]

# pytest answers 5 where there is no such test.
test-long: $(ready) pairs ## the tests that take minutes
	$(python) -m pytest -m long tests || [ $$? -eq 5 ]

benchmark: $(ready) pairs ## loss, loader, explorer and training beside rivals, into data/results (15 minutes; PHOTOGRAPHS=DIR loads those)
	$(python) tests/benchmarks/loss.py
	$(python) tests/benchmarks/loader.py --data "$(or $(PHOTOGRAPHS),data/scenes)"
	$(python) tests/benchmarks/explorer.py
	$(python) tests/benchmarks/training.py
	$(python) tests/benchmarks/page.py

experiments: $(ready) pairs ## for authors: the claims, and every regularizer beside none, into data/results (two hours and a half)
	$(python) -m helpers.experiments --data data/scenes --arms data/results/claims_arms.txt \
	  --out data/results/claims.json --runs runs/claims --epochs 2 --equal steps
	[ -d data/scenes-hard ] || $(python) -m helpers.scenes.render --out data/scenes-hard --hard
	$(python) -m helpers.experiments --data data/scenes --arms data/results/regularizers_arms.txt \
	  --out data/results/regularizers_easy.json --runs runs/regularizers_easy --epochs 3
	$(python) -m helpers.experiments --data data/scenes-hard --arms data/results/regularizers_arms.txt \
	  --out data/results/regularizers_hard.json --runs runs/regularizers_hard --epochs 4

features: $(ready) pairs ## for authors: train once and write data/features.npz
	$(python) -m helpers.classroom.snapshots --data data/scenes --out data/features.npz

notebooks: $(ready) pairs ## for authors: execute all notebooks in place and store their outputs
	$(python) -m helpers.classroom execute notebooks/*.ipynb

# The CUDA libraries are left to torch, which asks for exactly those that it was built with.
lock: $(ready) ## for authors: pin the newest packages that pyproject.toml allows in requirements.txt
	echo "Pinning the packages ..."
	$(uv) pip compile --quiet --universal --python-version 3.11 --extra test --no-annotate --no-header \
	  --no-emit-find-links --output-file .venv/requirements.txt --upgrade pyproject.toml
	{ echo "# Made by \`make lock\` from pyproject.toml. The CUDA libraries are left to torch, which brings them."; \
	  grep -E -v '^(nvidia-|cuda-|triton)' .venv/requirements.txt; } > .venv/requirements.pinned
	mv .venv/requirements.pinned requirements.txt

clean: ## remove what can be made again; your copies, your runs and downloaded data stay
	rm -rf .venv data/scenes data/emoji data/cache build *.egg-info .pytest_cache .ruff_cache
	find helpers notebooks tests -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
	echo "Removed .venv, data/scenes, data/emoji and caches. Left alone: my_course/, runs/ and everything else in data/."

# .venv/ready is written last and records what .venv was made for: this folder, the build of torch, the Python. Where it
# is missing, because a set-up was stopped half-way, or says something else, .venv is made anew.
recorded = $(shell test -x $(python) && sed -n $(1)p $(ready) 2>/dev/null)
identity = import sys; print("%d.%d.%d" % sys.version_info[:3], sys.base_prefix)
torch_backend := $(or $(TORCH_BACKEND),$(call recorded,2),default)
ifneq ($(call recorded,1),$(CURDIR))
stale := anew
else ifneq ($(call recorded,2),$(torch_backend))
stale := anew
else ifneq ($(origin PYTHON),file)
ifneq ($(call recorded,3),$(shell "$(PYTHON)" -c '$(identity)' 2>/dev/null))
stale := anew
endif
endif

# The Python that makes .venv is asked for first: the one named may stand in the .venv that is about to go.
define make_venv
"$(PYTHON)" -c "" 2>/dev/null || { echo "$(PYTHON) does not start here. Install Python 3.11 or later, or name one that is there: make env PYTHON=python3.12" >&2; exit 2; }
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11, which the course needs. Name a later one: make env PYTHON=python3.12" >&2; exit 2; }
echo "Making a Python environment in .venv ..."
maker=$$("$(PYTHON)" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))') && rm -rf .venv && "$$maker" -m venv .venv
endef

$(ready): requirements.txt pyproject.toml $(stale)
	$(if $(stale),$(make_venv))
	rm -f $@
	echo "Installing the packages of the course into .venv (the first time, a large download) ..."
	uv --version >/dev/null 2>&1 || $(python) -m pip install --quiet --disable-pip-version-check uv
	$(uv) pip install --python $(python) $(if $(filter-out default,$(torch_backend)),--torch-backend "$(torch_backend)") -r requirements.txt
	$(uv) pip install --python $(python) --quiet --no-deps --editable .
	{ echo "$(CURDIR)"; echo "$(torch_backend)"; $(python) -c '$(identity)'; } > $@
