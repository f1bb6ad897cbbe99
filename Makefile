# The commands of the course; `make help` lists them. They need no activated environment.

PYTHON ?= python3
python := .venv/bin/python
ready := .venv/ready
uv = $$(uv --version >/dev/null 2>&1 && echo uv || echo .venv/bin/uv)

# When another program is busy, torch's threads that wait by spinning can slow a training step a hundredfold.
export OMP_WAIT_POLICY := PASSIVE
# Without compiled files, each start of a kernel would compile torch again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE
# Another project's modules may have the names of the course's.
unexport PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help lab exercises reset release env pairs test clean test-long notebooks features experiments benchmark lock
.SILENT:

help:
	awk -F ' *## *' '/^## / { print "\n" $$2 } /^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "make %-12s %s\n", $$1, $$2 }' Makefile

## For learners and teachers

lab: $(ready) ## set up what is missing and open your copies in JupyterLab (PORT=8890 sets the port)
	$(python) -m helpers.classroom lab $(PORT)

exercises: $(ready) ## only make your own copies in my_course/ (lab does this too), and leave existing ones alone
	$(python) -m helpers.classroom exercises

reset: $(ready) ## make a fresh copy of one lesson (NB=01) and keep your old copy next to it
	$(python) -m helpers.classroom reset "$(NB)"

release: $(ready) ## write an nbgrader course with points and hidden tests into nbgrader_course/
	$(python) -m helpers.classroom release

env: $(ready) ## only set up the environment (PYTHON=python3.12 sets the Python, TORCH_BACKEND=cpu a small torch)
	echo "The environment in .venv is ready."

pairs: $(ready) ## only generate data/scenes and data/emoji
	$(python) -m helpers.classroom pairs

# Every part runs, even if another fails, so that one run shows every problem. The notebooks run beside the other tests.
test: $(ready) pairs ## test everything: style, helpers, every notebook, the widgets in a browser (PHOTOGRAPHS=DIR adds photographs)
	$(python) -m ruff format --check . && $(python) -m ruff check .; style=$$?; \
	COURSE_QUICK=1 $(python) -m pytest -p no:cacheprovider notebooks > .venv/notebooks.txt 2>&1 & notebooks=$$!; \
	$(python) -m pytest tests; tests=$$?; \
	wait $$notebooks; notebooks=$$?; cat .venv/notebooks.txt; \
	[ $$style -eq 0 ] || echo "The style check failed: see the lines above the tests." >&2; \
	[ $$style -eq 0 ] && [ $$tests -eq 0 ] && [ $$notebooks -eq 0 ]

clean: ## remove the environment, generated pairs and caches; your copies, runs and downloaded data stay
	rm -rf .venv data/scenes data/emoji data/cache build *.egg-info .pytest_cache .ruff_cache
	find helpers notebooks tests -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +

## For authors

test-long: $(ready) pairs ## run the tests that take minutes
	$(python) -m pytest -m long tests

notebooks: $(ready) pairs ## execute all notebooks and store their outputs
	$(python) tests/notebooks/execute.py notebooks/*.ipynb

features: $(ready) pairs ## train once and write data/features.npz and data/model.pt
	$(python) tests/benchmarks/features.py

experiments: $(ready) pairs ## run the study of lesson 06, or continue it (four hours; PHOTOGRAPHS=DIR adds photographs)
	nice -n 19 $(python) tests/benchmarks/study.py scenes emoji regularizers batch "wrong 0.1" "wrong 0.3" \
	  $(if $(PHOTOGRAPHS),photographs --photographs "$(PHOTOGRAPHS)")
	$(python) tests/benchmarks/study.py

benchmark: $(ready) pairs ## measure loss, loader and explorer, into data/results (10 minutes; PHOTOGRAPHS=DIR loads those)
	$(python) tests/benchmarks/loss.py
	$(python) tests/benchmarks/loader.py "$(or $(PHOTOGRAPHS),data/scenes)"
	$(python) tests/benchmarks/explorer.py

lock: $(ready) ## pin the newest packages that pyproject.toml allows in requirements.txt
	$(uv) pip compile --quiet --universal --python-version 3.11 --extra test --no-annotate --no-header \
	  --no-emit-find-links --output-file .venv/requirements.txt --upgrade pyproject.toml
	{ echo "# Made by \`make lock\` from pyproject.toml. The CUDA libraries are left to torch, which brings them."; \
	  grep -E -v '^(nvidia-|cuda-|triton)' .venv/requirements.txt; } > requirements.txt

# The file .venv/ready is written last, so that a set-up which was stopped is repeated.
$(ready): requirements.txt pyproject.toml
	"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { echo "The course needs Python 3.11 or later; $(PYTHON) is missing or older. Name another: make env PYTHON=python3.12" >&2; exit 2; }
	echo "Installing the packages of the course into .venv (a large download the first time) ..."
	"$(PYTHON)" -m venv .venv
	uv --version >/dev/null 2>&1 || PIP_USER=0 $(python) -m pip install --quiet --disable-pip-version-check uv
	$(uv) pip install --python $(python) $(if $(TORCH_BACKEND),--torch-backend "$(TORCH_BACKEND)") -r requirements.txt --editable .
	touch $@
