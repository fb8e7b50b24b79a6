PYTHON   ?= python3
VENV     ?= .venv
ARGS     ?=
# Files of tests side by side, each in one process, as its tests share what they set up.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

python  := $(VENV)/bin/python
# Where it is set, as in many images of containers, every process and worker of Ray compiles torch anew, for 4 s each.
unexport PYTHONDONTWRITEBYTECODE
# uv installs in a third of pip's time. Where it is there already, and works, the environment needs no pip.
uv      := $(shell uv --version >/dev/null 2>&1 && command -v uv)

.DEFAULT_GOAL := help
.PHONY: help search test test-all test-gpu check stage-code clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

search: $(VENV)/.search  ## Search on the embedded data; ARGS="--trials 4" passes options on
	$(python) -m tune.search --space quickstart --resume $(ARGS)

test: $(VENV)/.test  ## Run the quick tests; ARGS="-k data" passes options on
	$(python) -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-all: $(VENV)/.test-all  ## Run all tests, also the slow ones and those that start a cluster
	$(python) -m pytest -m "" $(ARGS)

test-gpu: $(VENV)/.test  ## Run the tests that need a GPU, in about five minutes; where there is none they say so
	$(python) -m pytest -m gpu tests/gpu $(ARGS)

check: $(VENV)/.check  ## Lint and check types
	$(python) -m ruff check .
	$(python) -m mypy

stage-code: $(VENV)/.test  ## Write down the stages' code, after a version was raised or where results are unchanged
	$(python) -m tests.tune.pipeline.stage_code

clean:  ## Remove caches and build output; results and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find components tune tests search_spaces -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of requirements: installed once, and again only when pyproject.toml changes.
$(VENV)/.search:   extras :=
$(VENV)/.test:     extras := [test]
$(VENV)/.test-all: extras := [test,cluster,cloud,attacks,dashboard,browser]
$(VENV)/.check:    extras := [check]

$(VENV)/.search $(VENV)/.test $(VENV)/.test-all $(VENV)/.check: pyproject.toml | $(VENV)/.created
	$(if $(uv),,@$(python) -m pip --version >/dev/null 2>&1 || $(python) -m ensurepip --upgrade)
	$(python) deploy/install.py -e '.$(extras)'
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(if $(uv),--without-pip) $(VENV)
	@touch $@
