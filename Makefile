# Start with `make demo` and `make test`. Everything that they write is in .venv, lab/.state, dist and site.
.PHONY: demo test unit coverage lint pages bundle lab-up lab-down
PYTHON := .venv/bin/python
# With this variable, every process would compile all modules that it imports.
unexport PYTHONDONTWRITEBYTECODE

demo: machine-demo .venv/ready
	@$(PYTHON) -m lab.demo

test: machine-test lint .venv/docs/ready
	@$(PYTHON) -m pytest --numprocesses 3 --dist worksteal

unit: .venv/ready
	@$(PYTHON) -m pytest tests/unit --quiet --numprocesses auto --dist worksteal

# Writes into the pages, or into PAGES, what their commands print now.
pages: machine-pages .venv/ready
	@CTR_FERRY_WRITE_PAGES=1 $(PYTHON) -m pytest tests/lab/test_pages.py --quiet

# Which branches the unit tests take. No minimum is demanded.
coverage: .venv/ready
	@$(PYTHON) -m pytest tests/unit --quiet --numprocesses auto --dist worksteal \
		--cov=tasks --cov=ctr_ferry --cov-branch --cov-report=term:skip-covered

# Builds the site into site/, and looks at it in a browser.
docs: machine-docs .venv/ready .venv/docs/ready
	@NO_MKDOCS_2_WARNING=1 TMPDIR=.venv/docs .venv/docs/bin/mkdocs build --strict --quiet
	@$(PYTHON) -m pytest tests/lab/test_site.py --quiet

.venv/docs/ready: requirements-docs.lock .venv/ready
	@echo "docs: fetching mkdocs-material, and writing 180 MB to .venv/docs" >&2
	@$(PYTHON) -m venv --clear .venv/docs
	@.venv/docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $< && touch $@

lint: .venv/ready
	@.venv/bin/ruff format --check --quiet . && .venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary & .venv/bin/mypy --no-error-summary --config-file tests/mypy.ini \
		&& wait $$! || { wait; exit 1; }

# PYTHONS="3.11 3.12" and MACHINES=x86_64 make a smaller one.
bundle: machine-bundle .venv/ready
	@$(PYTHON) -m bundle

lab-up lab-down: lab-%: machine-lab-% .venv/ready
	@$(PYTHON) -m lab $*

bench-%: machine-bench-% .venv/ready
	@$(PYTHON) -m bench.$*

machine-%:
	@lab/check-machine.sh $*

.venv/ready: requirements.lock
	@lab/make-venv.sh && touch $@
