# Two commands for a newcomer: `make demo` and `make test`. Everything stays in .venv and lab/.state.
.PHONY: demo test lint lab-up lab-down
PYTHON := .venv/bin/python

demo: .venv/ready
	@lab/check-machine.sh demo && $(PYTHON) -m lab.demo

test: lint
	@lab/check-machine.sh test && $(PYTHON) -m pytest

lint: .venv/ready
	@.venv/bin/ruff format --check --quiet . && .venv/bin/ruff check --quiet . && .venv/bin/mypy --no-error-summary

lab-up lab-down: lab-%: .venv/ready
	@lab/check-machine.sh lab-$* && $(PYTHON) -m lab $*

bench-%: .venv/ready
	@lab/check-machine.sh bench-$* && $(PYTHON) -m bench.$*

.venv/ready: requirements.lock
	@lab/make-venv.sh && touch $@
