# Everything stands on .venv: `make demo` on a bare machine with Python 3.11 installs, trains and shows.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo scale-demo test test-all test-minimum test-versions faults mutants crosscheck crosscheck-fla docs check format lock clean

demo: .venv  ## four architectures on all six tasks, then report.html
	$(BIN)/archlab run transformer++ hyena mamba striped-mh-hyena --protocol quick --seeds 1
	$(BIN)/archlab report -o report.html

scale-demo: .venv  ## a scaling study of two architectures on the standard library, then scaling.html
	$(BIN)/archlab scale plan transformer++ striped-hyena --ladder quick -o scale-demo.yaml
	$(BIN)/archlab scale run scale-demo.yaml --store scale-demo.db
	$(BIN)/archlab scale fit --store scale-demo.db
	$(BIN)/archlab scale report --store scale-demo.db -o scaling.html

test: .venv  ## the default suite, about seven minutes on two cores
	$(BIN)/pytest -n auto

test-all: .venv test-minimum test-versions  ## everything that this machine can run, the slow tests too
	$(BIN)/pytest -n auto -m "not gpu"

test-versions:  ## the default suite under every version of Python that is allowed, as far as this machine has them
	@export PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd: -); \
	for version in 3.11 3.12 3.13; do \
		if ! python$$version -c "" 2>/dev/null; then echo "python$$version is not on this machine: its tests are skipped"; continue; fi; \
		$(MAKE) .venv-py$$version/stamp && .venv-py$$version/bin/pytest -n auto || exit 1; \
	done

test-minimum: .venv-minimum/stamp  ## the default suite with the lowest versions that pyproject.toml allows; torch stays as locked
	.venv-minimum/bin/pytest -n auto

faults: .venv  ## kill workers, runs and databases at random points, and count what is lost, doubled, wrong or hung
	PYTHONPATH=. $(BIN)/python -m benchmarks.faults --injections 300

mutants: .venv-mutants/stamp  ## change statistics, store, racing and scheduler in small ways, and show what no test notices
	mkdir -p mutants/src
	PYTHONPATH=$(CURDIR)/mutants/src OMP_NUM_THREADS=1 .venv-mutants/bin/mutmut run
	.venv-mutants/bin/mutmut results

crosscheck: .venv-crosscheck/stamp  ## the layers beside those of transformers, in an environment of its own
	.venv-crosscheck/bin/pytest tests/crosschecks

crosscheck-fla: .venv-crosscheck-fla/stamp  ## the kernels of flash-linear-attention beside PyTorch's operations, interpreted
	TRITON_INTERPRET=1 .venv-crosscheck-fla/bin/pytest tests/crosschecks/test_fla.py

docs: .venv-docs/stamp  ## the documentation as a site: build/docs/site/index.html
	.venv-docs/bin/python tools/site.py build/docs
	.venv-docs/bin/zensical build --strict --config-file build/docs/zensical.toml

check: .venv  ## style, types, layering
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/docstring_openings.py

format: .venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The environment is complete when its stamp is as new as what it was made from.
.venv: .venv/stamp

.venv/stamp: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv-%/stamp: pyproject.toml requirements.lock  # with the extra of that name
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --requirement requirements.lock
	.venv-$*/bin/pip install --quiet --no-build-isolation --editable .[$*]
	touch $@

.venv-py%/stamp: pyproject.toml requirements.lock
	python$* -m venv .venv-py$*
	.venv-py$*/bin/pip install --quiet --requirement requirements.lock
	.venv-py$*/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv-minimum/stamp: pyproject.toml requirements.lock tools/lowest_versions.py
	$(PYTHON) -m venv .venv-minimum
	$(PYTHON) tools/lowest_versions.py > .venv-minimum/constraints
	.venv-minimum/bin/pip install --quiet --constraint .venv-minimum/constraints --editable . pytest pytest-xdist hypothesis hatchling
	touch $@

lock: .venv  ## write down what is installed, after upgrading by hand
	$(BIN)/pip freeze --exclude-editable --exclude archlab | sed 's/+cpu//' > requirements.lock

clean:
	rm -rf .venv .venv-crosscheck* .venv-docs .venv-minimum .venv-py* .venv-mutants build mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis report.html
