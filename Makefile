# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv by themselves.
PY ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
# A folder of wheels (pip's find-links) decides the PyTorch build; without one uv picks CPU or CUDA by itself.
export UV_FIND_LINKS ?= $(or $(PIP_FIND_LINKS),$(shell $(PY) -m pip config get global.find-links 2>/dev/null))
BACKEND := $(if $(UV_FIND_LINKS),,--torch-backend=$(or $(TORCH_BACKEND),auto))

.PHONY: setup demo test check lint types docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PY) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'seriatim needs Python 3.11 or newer')"
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q "uv>=0.7"
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python $(BACKEND) -c constraints.txt -e ".[all]" --group dev
	touch $@

demo: $(STAMP)
	$(BIN)/seriatim demo --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf .venv runs/demo
