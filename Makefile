# make demo   environment, install, then TI and DTI on one concept: train, score, paint, measure; ends with the page
# make test   environment, install with test extras, a browser where one can be had, and all tests
# make test-fast  the tests that need no browser, notebook, wheel or long run: about two minutes
# make test-lowest  geometry, files and commands on the lowest versions that pyproject.toml declares
# make lab    environment with JupyterLab, opened on the notebooks
# make check  format, lint, types and the direction of imports
# make wheel  build the wheel, install it in a clean environment, run it from another directory
# make reference  write cli/README.md from the commands
# make docs   build the documentation site, offline, below build/docs; a warning is an error
# make notebooks  execute the notebooks and keep light outputs in them (minutes; plots become pictures)
# make reports  train, paint and measure what reports/ shows (minutes; what build/reports holds is not made again)
# make bench  benchmarks, each beside its baseline
# make mini   train the embedded model from nothing (hours), below build/mini; a stopped run resumes
# make mini-eval  measure the embedded model, and write its figures and card

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-fast test-lowest lab check format wheel reference docs notebooks reports bench mini mini-eval chromium clean

# Short on purpose, about a minute of one core: 40 updates, and 8 sampler steps where a run takes 25.
DEMO := $(BIN)/dti-geom
demo: .venv/.installed
	$(DEMO) train --concept green-fox --method ti --token "<ti>" --steps 40 --preview-every 40 --out demo/ti --overwrite
	$(DEMO) train --concept green-fox --method dti --token "<dti>" --steps 40 --preview-every 40 --out demo/dti --overwrite
	$(DEMO) evaluate demo/ti demo/dti --seeds 1 --steps 8 --out demo/evaluation --overwrite
	$(DEMO) interpolate "<ti>" "<dti>" --embedding demo/ti --embedding demo/dti \
	  --points 5 --steps 8 --out demo/between --overwrite
	$(DEMO) report --full --run demo/ti --run demo/dti --interpolation demo/between \
	  --evaluation demo/evaluation --out demo --overwrite

# One process per core with one thread each: threads that share cores wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadscope

test: .venv/.installed-test chromium
	$(PYTEST) --nbmake tests notebooks

test-fast: .venv/.installed-test
	$(PYTEST) -m "not slow and not browser and not install" tests

# An environment of its own. LOWEST=torch==2.13.0 takes another version of a dependency instead.
# Old versions may warn of what newer ones of their own dependencies deprecate, and an older typer
# words its help otherwise than the reference does.
test-lowest:
	test -d build/lowest || $(PYTHON) -m venv build/lowest
	.ci/lowest $(LOWEST) > build/lowest/constraints.txt
	build/lowest/bin/pip --disable-pip-version-check install --quiet \
	  --constraint build/lowest/constraints.txt --editable . pytest pytest-xdist hypothesis geoopt
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest --numprocesses auto --dist loadscope -W default \
	  -m "not slow and not browser and not install" tests/geometry tests/files tests/cli \
	  --deselect tests/cli/test_reference.py::test_the_committed_reference_is_that_of_the_app

lab: .venv/.installed-notebooks
	$(BIN)/jupyter lab notebooks

check: .venv/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: .venv/.installed-test
	rm -rf dist build/lib build/bdist* build/clean
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/clean
	build/clean/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt dist/*.whl
	cd / && "$(CURDIR)/build/clean/bin/dti-geom" --version && \
	  "$(CURDIR)/build/clean/bin/dti-geom" neighbors --model mini fox

reference: .venv/.installed
	$(BIN)/python -m dti_geom_cli.reference > cli/README.md

docs: .venv/.installed-docs
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --quiet -c docs . build/docs
	@echo "build/docs/docs/index.html"

notebooks: .venv/.installed-docs .venv/.installed-notebooks chromium
	OMP_NUM_THREADS=1 $(BIN)/python docs/execute_notebooks.py

RUNS := build/reports
ONE := OMP_NUM_THREADS=1 $(BIN)/dti-geom

reports: $(RUNS)/between/interpolation.json $(RUNS)/evaluation/evaluation.json
	$(ONE) report --full --run $(RUNS)/ti --run $(RUNS)/dti --interpolation $(RUNS)/between \
	  --evaluation $(RUNS)/evaluation --out reports/mini
	$(ONE) norms --model mini --out reports/norms --overwrite

$(RUNS)/between/interpolation.json: $(RUNS)/ti/result.json
	$(ONE) interpolate "<ti>" fox --embedding $(RUNS)/ti --out $(RUNS)/between --overwrite

$(RUNS)/evaluation/evaluation.json: $(RUNS)/ti/result.json $(RUNS)/dti/result.json
	$(ONE) evaluate $(RUNS)/ti $(RUNS)/dti --out $(RUNS)/evaluation --overwrite

$(RUNS)/%/result.json: | .venv/.installed
	$(ONE) train --concept round-teapot --method $* --token "<$*>" \
	  --out $(RUNS)/$* --overwrite

bench: .venv/.installed-bench
	$(BIN)/python benchmarks/nearest.py
	$(BIN)/python benchmarks/norms.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/mini.py
	$(BIN)/python benchmarks/probes.py --model mini
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/train_step.py --model mini
	$(BIN)/python benchmarks/train_step.py --model sdxl-tiny
	$(BIN)/python benchmarks/memory.py

# One thread: on a busy machine the bfloat16 backward of convolutions is many times slower on two.
mini: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m dti_geom.mini.recipe --work build/mini

mini-eval: .venv/.installed
	$(BIN)/python -m dti_geom.mini.recipe eval --work build/mini

# Each stamp says that what it names was installed from these two files; a second run finds it and installs nothing.
.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/.installed-%: pyproject.toml constraints.txt | .venv/.installed
	$(PIP) --editable '.[$*,dev]'
	touch $@

# Browser tests are skipped, saying so, where no browser can be had.
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium here and none could be installed: browser tests will be skipped"

clean:
	rm -rf .venv build dist demo *.egg-info
