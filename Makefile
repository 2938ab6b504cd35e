# Every target does its own set-up, in a virtual environment inside the checkout, and again when what it is made from changes.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
# What to run instead of all tests: PYTEST="tests/media -k mask". In another order: PYTEST="-p randomly".
PYTEST ?=
# How many processes share the tests.
PROCESSES ?= 2
# What the CUDA module is built for here: one architecture, which newer GPUs run too. A wheel is built for all.
CUDA_ARCHITECTURES ?= 75

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What builds the package lies in the environment, where it keeps its path: a build after the first compiles what has changed.
BUILDERS := cmake ninja $(shell sed -n '/^requires = /{s/.*\[//; s/\]//; s/", "/" "/g; p}' pyproject.toml)
INSTALL := $(PIP) --no-build-isolation --config-settings=cmake.build-type=Release
CODE := samg_fast export distill
ENGINE := CMakeLists.txt $(shell find cmake engine -type f)
SETUP := pyproject.toml $(ENGINE) $(VENV)/.files
# No GPU is used by what needs this.
WITHOUT_CUDA := --config-settings=cmake.define.SAMG_CUDA=OFF
TESTED := --config-settings=cmake.define.SAMG_TESTS=ON
# The small environment of a target, or that of the tests where it has been made: the package in it can do more.
ENVIRONMENT = $(firstword $(wildcard $(VENV)/.dev) $(VENV)/.$(1))

# One thread for each process of the tests.
RUN_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
# What make check leaves out of tests/: what needs torch, a simulator or a compiler; and what takes long: programs in processes
# of their own, the fakes of a GPU and of TensorRT, fuzzing, and the examples in documents.
HEAVY := benchmarks distill envs examples export fitting scripts engine backends/tensorrt backends/test_memory.py pipeline/gpu \
	ops/test_fuzz.py ops/test_refusals.py devices cli/test_build.py test_docs.py test_processes.py
KERNEL_TESTS := engine/test_bindings.py $(patsubst %,ops/test_%.py,fuzz refusals preprocess similarity_map topk_points \
	resize_logits prompt_assembly apply_mask)

.PHONY: help demo check lint test slow sanitize bench clean FORCE
.DELETE_ON_ERROR:

help: ## print what each target does
	@sed -n 's/^\([a-z]*\):.* ## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

demo: $(call ENVIRONMENT,cpu) ## cut targets out of moving videos: out/demo.mp4, out/contact_sheet.png, figures on the screen
	$(BIN)/samg-fast demo --out $(OUT) --json $(OUT)/figures.json

check: lint ## what make lint does, and the quick tests: without torch, simulators, compilers, fakes of a GPU
	$(RUN_TESTS) $(HEAVY:%=--ignore=tests/%) $(PYTEST)

# import-linter must see the folders as they lie in the checkout; -S keeps the installed package's import hook away.
lint: $(VENV)/.dev ## format, lint, types, directions of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	find engine tests -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	PYTHONPATH="$(CURDIR):$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')" $(BIN)/python -S -c \
		'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-cache
	$(BIN)/mypy

test: $(VENV)/.dev ## the tests but the slow ones, those of the engine in C++, and make sanitize; PYTEST="..." selects
	scripts/rendering.sh $(BIN)/python
	scripts/chromium.sh
	$(RUN_TESTS) $(PYTEST)
ifeq ($(PYTEST),)
	$(BIN)/ctest --test-dir $(VENV)/build/dev --output-on-failure
	$(MAKE) sanitize
endif

slow: $(VENV)/.dev ## the slow tests: official models whole, kernels compiled for every architecture
	scripts/rendering.sh $(BIN)/python
	scripts/chromium.sh
	$(RUN_TESTS) -m "slow and not gpu" $(PYTEST)

# The sanitizers' libraries come first, as Python itself was not built with them; it also never frees all it has. Python is
# started in tests/, as the package in the checkout, which it would find here, has no compiled modules.
sanitize: $(VENV)/.sanitized ## the kernels, those for GPUs too, on the CPU under AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/ctest --test-dir $(VENV)/build/sanitized --output-on-failure
	cd tests && ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 \
		LD_PRELOAD="$$(for name in asan ubsan stdc++; do $${CXX:-c++} -print-file-name=lib$$name.so; done | tr '\n' ' ')" \
		$(abspath $(VENV))/sanitized/bin/python -m pytest -p no:cacheprovider -n $(PROCESSES) --dist worksteal $(KERNEL_TESTS)

bench: $(call ENVIRONMENT,bench) ## latency on this machine
	$(BIN)/python -m benchmarks.latency

clean: ## remove what the others made
	rm -rf $(VENV) out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "samg-fast needs Python 3.10 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(BUILDERS)
	touch $@

# The list of the package's files, rewritten when it changes: an editable install knows where each of them lies.
$(VENV)/.files: FORCE
	@mkdir -p $(VENV)
	@find $(CODE) -type f ! -name '*.pyc' | LC_ALL=C sort > $@.new
	@if cmp --silent $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(VENV)/.cpu $(VENV)/.bench: $(VENV)/.%: $(SETUP) $(VENV)/.made
	$(INSTALL) $(WITHOUT_CUDA) --config-settings=build-dir=$(VENV)/build/small --editable '.[$*]'
	touch $@

# What the tests, the benchmarks' comparisons and the linters need; types are checked against the packages that the code
# imports. torch comes first and exact: the range in pyproject.toml alone would let pip look for a newer patch release, and so
# miss a CPU build of this one that the machine offers and fetch gigabytes of CUDA.
$(VENV)/.dev: $(SETUP) $(VENV)/.made
	scripts/doctest.sh
	$(PIP) torch==2.13.0
	$(INSTALL) $(TESTED) --config-settings=cmake.define.SAMG_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES) \
		--config-settings=build-dir=$(VENV)/build/dev --editable '.[distill,lint,test]'
	touch $@

# An environment whose modules are built for the sanitizers; everything else is borrowed from the one above. A path in a
# .pth file is searched last, and the .pth files of that folder, so the editable package too, are left alone.
$(VENV)/.sanitized: $(SETUP) $(shell find $(CODE) -name '*.py') $(VENV)/.dev
	$(PYTHON) -m venv --without-pip $(VENV)/sanitized
	$(BIN)/python -c "import site; print(*site.getsitepackages(), '$(CURDIR)', sep='\n')" \
		> $$($(VENV)/sanitized/bin/python -c "import site; print(site.getsitepackages()[0])")/borrowed.pth
	$(BIN)/python -m pip --python $(VENV)/sanitized/bin/python install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --force-reinstall $(TESTED) $(WITHOUT_CUDA) --config-settings=cmake.define.SAMG_SANITIZE=ON \
		--config-settings=cmake.build-type=RelWithDebInfo --config-settings=build-dir=$(VENV)/build/sanitized .
	touch $@
