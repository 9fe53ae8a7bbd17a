# make demo: install, synthesise the demo corpus, run LoRA on it, write the leaderboard.
# make test: install if needed, lint, type-check, run every test.
# make gpu: all that only a GPU can show, on one card; PART=job for a part of it (docs/gpu.md).
# make bench: measure against what a user would write (some 15 minutes on an idle machine).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := upstream downstream peft_modules recipes leaderboard
READY := $(VENV)/.installed

PART ?=

.PHONY: demo test bench gpu lint types pytest clean install

install: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python -m emopeft demo

# All three at once: pytest leaves a core idle now and then.
test: $(READY)
	$(MAKE) -j 3 lint types pytest

# A worker keeps to the files it began with, and to what their tests share, until it helps the other.
pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(READY)
	$(BIN)/python -m benchmarks

# From the checkout, with the packages that are there: nothing is installed or fetched.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(PART)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy knows no package whose rooms lie beside it: it sees them through links.
types: $(READY)
	mkdir -p $(VENV)/types/emopeft
	ln -sfn $(CURDIR)/emopeft/* $(foreach room,$(ROOMS),$(CURDIR)/$(room)) $(VENV)/types/emopeft
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/demo demo_corpus demo_domains leaderboard_out
