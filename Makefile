# Every target does its own set-up, in a virtual environment inside the checkout, and again when pyproject.toml changes.
#   make demo    cut targets out of moving videos: out/demo.mp4, out/contact_sheet.png, figures on the screen
#   make test    the tests            PYTEST="tests/test_media.py -k mask" runs some of them
#   make bench   latency on this machine
#   make lint    format, lint, types
#   make clean   remove what the others made

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
PYTEST ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SETUP := pyproject.toml CMakeLists.txt

.PHONY: demo test bench lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.cpu
	$(BIN)/samg-fast demo --out $(OUT) --json $(OUT)/figures.json

test: $(VENV)/.test
	scripts/rendering.sh $(BIN)/python
	$(BIN)/python -m pytest $(PYTEST)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.latency

lint: $(VENV)/.lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "samg-fast needs Python 3.10 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.cpu: $(SETUP) | $(VENV)/.made
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/.bench: $(SETUP) | $(VENV)/.made
	$(PIP) --editable '.[bench]'
	touch $@

# The tests of distill/ take some training steps. torch comes first and exact: the range in pyproject.toml alone would let pip
# look for a newer patch release, and so miss a CPU build of this one that the machine offers and fetch gigabytes of CUDA.
$(VENV)/.test: $(SETUP) | $(VENV)/.made
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[distill,test]'
	touch $@

# Types are checked against the packages that the code imports, hence what the tests need too.
$(VENV)/.lint: $(SETUP) $(VENV)/.test
	$(PIP) --editable '.[lint]'
	touch $@
