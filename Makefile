# Every target does its own set-up, in a virtual environment inside the checkout, and again when what it is made from changes.
#   make demo      cut targets out of moving videos: out/demo.mp4, out/contact_sheet.png, figures on the screen
#   make test      the tests, and what `make sanitize` runs   PYTEST="tests/media/test_media.py -k mask" runs some of them
#   make sanitize  the kernels, those for GPUs too, on the CPU under AddressSanitizer and UndefinedBehaviorSanitizer
#   make bench     latency on this machine
#   make lint      format, lint, types
#   make clean     remove what the others made

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
PYTEST ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ENGINE := CMakeLists.txt $(shell find cmake engine -type f)
SETUP := pyproject.toml $(ENGINE)
# No GPU is used by what needs this, and the CUDA module takes a minute to build.
WITHOUT_CUDA := --config-settings=cmake.define.SAMG_CUDA=OFF
TESTED := --config-settings=cmake.define.SAMG_TESTS=ON
KERNEL_TESTS := engine/test_bindings.py $(patsubst %,ops/test_%.py,fuzz refusals preprocess similarity_map topk_points \
	resize_logits prompt_assembly apply_mask)

.PHONY: demo test sanitize bench lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.cpu
	$(BIN)/samg-fast demo --out $(OUT) --json $(OUT)/figures.json

test: $(VENV)/.test
	scripts/rendering.sh $(BIN)/python
	$(BIN)/python -m pytest $(PYTEST)
ifeq ($(PYTEST),)
	$(BIN)/ctest --test-dir $(VENV)/build --output-on-failure
	$(MAKE) sanitize
endif

# The sanitizers' libraries come first, as Python itself was not built with them; it also never frees all it has. Python is
# started in tests/, as the package in the checkout, which it would find here, has no compiled modules.
sanitize: $(VENV)/.sanitized
	$(BIN)/ctest --test-dir $(VENV)/sanitized-build --output-on-failure
	cd tests && ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(for name in asan ubsan stdc++; do $${CXX:-c++} -print-file-name=lib$$name.so; done | tr '\n' ' ')" \
		$(abspath $(VENV))/sanitized/bin/python -m pytest -p no:cacheprovider $(KERNEL_TESTS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.latency

lint: $(VENV)/.lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	find engine tests -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror

clean:
	rm -rf $(VENV) out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "samg-fast needs Python 3.10 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.cpu: $(SETUP) | $(VENV)/.made
	$(PIP) $(WITHOUT_CUDA) --editable '.[cpu]'
	touch $@

$(VENV)/.bench: $(SETUP) | $(VENV)/.made
	$(PIP) $(WITHOUT_CUDA) --editable '.[bench]'
	touch $@

# The tests of distill/ take some training steps. torch comes first and exact: the range in pyproject.toml alone would let pip
# look for a newer patch release, and so miss a CPU build of this one that the machine offers and fetch gigabytes of CUDA.
$(VENV)/.test: $(SETUP) | $(VENV)/.made
	$(PIP) torch==2.13.0
	scripts/doctest.sh
	$(PIP) $(TESTED) --config-settings=build-dir=$(VENV)/build --editable '.[distill,test]'
	touch $@

# An environment whose modules are built for the sanitizers; everything else is borrowed from the one above. A path in a
# .pth file is searched last, and the .pth files of that folder, so the editable package too, are left alone.
$(VENV)/.sanitized: $(SETUP) $(shell find samg_fast export distill -name '*.py') | $(VENV)/.test
	$(PYTHON) -m venv --without-pip $(VENV)/sanitized
	$(BIN)/python -c "import site; print(*site.getsitepackages(), '$(CURDIR)', sep='\n')" \
		> $$($(VENV)/sanitized/bin/python -c "import site; print(site.getsitepackages()[0])")/borrowed.pth
	$(BIN)/python -m pip --python $(VENV)/sanitized/bin/python install --quiet --disable-pip-version-check --no-deps \
		--force-reinstall $(TESTED) $(WITHOUT_CUDA) --config-settings=cmake.define.SAMG_SANITIZE=ON \
		--config-settings=cmake.build-type=RelWithDebInfo --config-settings=build-dir=$(VENV)/sanitized-build .
	touch $@

# Types are checked against the packages that the code imports, hence what the tests need too.
$(VENV)/.lint: $(SETUP) $(VENV)/.test
	$(PIP) $(TESTED) --config-settings=build-dir=$(VENV)/build --editable '.[lint]'
	touch $@
