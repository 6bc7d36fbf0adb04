# Everything runs in .venv, which is set up on first use from requirements.lock (names, versions,
# hashes) through the package index that pip is configured with.
#
#   make setup    create or update .venv
#   make demo     the main job on a real program, results in out/demo
#   make test     run the tests and the notebooks, but for those marked slow (a few minutes)
#   make test-all run all of them, the slow ones too
#   make check    lint, formatting, docstrings, types, licences and known vulnerabilities; changes nothing
#   make format   reformat and apply safe lint fixes
#   make bench    time the game, environments of the same kind, and search, in one table
#   make fidelity compare predictions with the compiler for the whole suite, into docs/fidelity*
#   make train    train the agent that ships anew, into agent/learning/pretrained (it can be stopped, goes on)
#   make suite    extract the suite's problems anew (hours; it can be stopped, and goes on)
#   make report   the tables of docs/fidelity.md anew from docs/fidelity; needs no compiler
#   make audit    ask for known vulnerabilities of what the lock pins; skips where no index answers
#   make licences check the licences of what the lock pins against an allow list
#   make sbom     write what the lock pins as a bill of materials: build/sbom.json (CycloneDX)
#   make wheel    build the wheel twice, into dist/ if both are the same bytes
#   make fuzz     fuzz every reader of files for FUZZ_SECONDS each, guided by coverage (installs atheris)
#   make faults   kill commands at random moments, FAULTS times, and see whether anything is lost
#   make soak     run optimize on random programs for SOAK_MINUTES, and watch memory, files, processes
#   make evidence learning curves, ablations, planning on test families, into docs/evidence* (hours; it
#                 can be stopped, and goes on)
#   make matrix   run the tests on Python 3.11 with jax 0.10 and on Python 3.12 with jax 0.11 (needs uv)
#   make lock     resolve requirements.lock anew (needs uv)
#   make clean    remove .venv, caches and build artefacts; out/ stays

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
LOCK := requirements.lock

# The stamp holds the path for which .venv was made: a virtual environment cannot be moved, so one
# that came along with a copied or renamed folder is made again.
STAMP := .venv/.stamp
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
STALE := stale
endif

.PHONY: setup demo test test-all check format bench fidelity train suite report lock clean stale
.PHONY: audit licences sbom wheel fuzz matrix faults soak evidence
.DEFAULT_GOAL := setup

setup: $(STAMP)
	@:

$(STAMP): $(LOCK) pyproject.toml $(STALE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is missing or older than Python 3.11;" \
	    "name another one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up .venv (first time: a few minutes)"
	@rm -f $(STAMP)
	@$(if $(STALE),,$(BIN)/python -c '' 2>/dev/null ||) $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes \
	  --only-binary :all: -r $(LOCK)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps \
	  --no-build-isolation --editable .
	@printf '%s\n' '$(CURDIR)' > $(STAMP)

stale:

demo: setup
	$(BIN)/mallocgame optimize decode_gqa --target tpu7x --budget 60 --seed 0 --out out/demo

# Whole files go to a process, for what they set up is shared by the tests of a file; in the order of
# tests/conftest.py, which has what takes longest first.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
test: setup
	@$(PYTEST) -m 'not slow'

test-all: setup
	@$(PYTEST)

check: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m tests.experiments.supply_chain licences
	@$(BIN)/python -m tests.experiments.supply_chain audit

audit licences sbom wheel: setup
	@$(BIN)/python -m tests.experiments.supply_chain $@

FUZZ_SECONDS ?= 600
# READERS="problem csv" fuzzes these alone; a name that is none lists all.
READERS ?=
fuzz: setup
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary :all: 'atheris>=3.0'
	@$(BIN)/python -m tests.experiments.fuzz --seconds $(FUZZ_SECONDS) $(READERS)

# What is there already in out/faults counts: more FAULTS add to it.
FAULTS ?= 100
faults: setup
	@$(BIN)/python -m tests.experiments.endurance.faults --faults $(FAULTS)

SOAK_MINUTES ?= 120
soak: setup
	@$(BIN)/python -m tests.experiments.endurance.soak --minutes $(SOAK_MINUTES)

# EXPERIMENTS="curves lead" measures these alone; a name that is none lists all.
EXPERIMENTS ?=
evidence: setup
	@$(BIN)/python -m tests.experiments.evidence $(EXPERIMENTS)

# Each in an environment of its own, resolved anew: the lock pins one jax. uv brings the Pythons that
# are not there, for which it needs the network; packages come from the index that it is configured
# with. MATRIX_TESTS="tests/malloc_game/game/test_game.py" runs a part.
MATRIX ?= 3.11:0.10 3.12:0.11
MATRIX_TESTS ?= tests
matrix:
	@command -v $(UV) >/dev/null || { \
	  echo "error: 'make matrix' needs uv (pip install uv), or name it: make matrix UV=..." >&2; exit 1; }
	@for cell in $(MATRIX); do \
	  python=$${cell%%:*}; jax=$${cell##*:}; venv=build/matrix/python$$python-jax$$jax; \
	  echo "== Python $$python, jax $$jax"; \
	  $(UV) venv -q --clear --python $$python $$venv && \
	  $(UV) pip install -q --compile-bytecode --python $$venv -e '.[dev]' "jax==$$jax.*" && \
	  $$venv/bin/python -m pytest -q -m 'not slow' $(MATRIX_TESTS) || exit 1; \
	done

format: setup
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: setup
	@$(BIN)/python -m agent.throughput

# The agent that ships was trained by this, with the config and the seed beside it. Run again after a
# stop, it goes on from the last checkpoint in out/train.
TRAIN_MINUTES ?= 36
train: setup
	$(BIN)/mallocgame train --config agent/learning/pretrained/training.json --seed 0 \
	  --minutes $(TRAIN_MINUTES) --out out/train $(if $(wildcard out/train/checkpoints/*),--resume)
	cp out/train/agent.msgpack agent/learning/pretrained/agent.msgpack

# Pairs that exist already are left as they are; remove their files from workloads/programs/data first, or
# name a part: make suite PAIRS="decode lstm-v4"
suite: setup
	$(BIN)/mallocgame suite --build $(PAIRS)

# Hours for the whole suite; it can be stopped, and goes on where it was: what docs/fidelity holds of
# the same settings and compiler is not measured again. For a part of it:
#   make fidelity PROGRAMS="lstm decode" TARGETS="v4 v5e"
PROGRAMS ?= suite
TARGETS ?= v4 v5e v6e v5p tpu7x
fidelity: setup
	$(BIN)/mallocgame fidelity $(PROGRAMS) $(addprefix --target ,$(TARGETS)) \
	  --out docs/fidelity --report docs/fidelity.md

report: setup
	$(BIN)/mallocgame fidelity --out docs/fidelity --report docs/fidelity.md

# One resolution for every Python version and platform. Where packages come from is the user's own
# configuration, so nothing about it goes into the lock.
lock:
	@command -v $(UV) >/dev/null || { \
	  echo "error: 'make lock' needs uv (pip install uv), or name it: make lock UV=..." >&2; exit 1; }
	@$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --upgrade --no-emit-index-url --custom-compile-command "make lock" \
	  --quiet --output-file $(LOCK)

clean:
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find malloc_game agent workloads tests -name __pycache__ -type d -prune -exec rm -rf {} +
