# make demo      install, convert the shipped pair, sweep both over videos, draw what differs
# make test      install the test extras, lint, type-check, run the suite
# make test-all  the same with the tests marked slow, and compilers for GPUs (700 MB)
# make docs      build the site into runs/site; a warning is an error
# make lock      resolve pyproject.toml anew (needs uv)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet
TORCH  := 2.13.0
# By file, so that what its tests share is made once; in the order of tests/conftest.py.
TWO    := -n 2 --dist loadfile --no-loadscope-reorder
LOCK   := uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate

.PHONY: demo docs test test-all lint lock clean

demo: $(VENV)/.demo
	$(BIN)/flowjax demo --out runs/demo --overwrite

docs: $(VENV)/.docs
	$(BIN)/mkdocs build

test: lint
	$(BIN)/pytest $(TWO)

test-all: lint $(VENV)/.cuda-compile
	$(BIN)/pytest $(TWO) -m "slow or not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# The locks name every package, so with --no-deps nothing unlocked can slip in.
$(VENV)/.demo: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) --no-deps --requirement requirements.lock
	$(PIP) --no-deps --editable .
	touch $@

# PyTorch's CPU build: from a local wheel if pip knows of one, else from PyTorch's own CPU index.
# The registry's default build for Linux brings several GB of CUDA.
$(VENV)/.test: requirements-test.lock $(VENV)/.demo
	$(PIP) --no-deps --requirement requirements-test.lock
	$(PIP) --no-deps "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$(TORCH)"
	touch $@

# A GPU's compilers need none; they are wheels for Linux on x86-64 only.
$(VENV)/.cuda-compile: requirements-cuda-compile.lock $(VENV)/.test
	$(PIP) --no-deps --requirement requirements-cuda-compile.lock
	touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.demo
	$(PIP) --editable ".[docs]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

lock:
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) --extra test --constraint requirements.lock pyproject.toml | \
	  grep -vE '^(torch|triton|cuda-|nvidia-)' > requirements-test.lock
	$(LOCK) --extra cuda-compile --constraint requirements.lock pyproject.toml | \
	  grep -E '^(jax-cuda|nvidia-cuda-nv)' > requirements-cuda-compile.lock

clean:
	rm -rf $(VENV) .cache runs
