# make            what there is to make
# make report     the demo report, on any machine
#
# Files are real targets: what is up to date is not made again, and what failed never looks finished.

# What is typed after make counts, what the environment happens to hold does not.
PROFILE  := demo
OUT      := report
WITH     :=
LAUNCHER :=
BUDGET   :=
KEEP     :=
RECORD   :=
LAB      :=
override OUT := $(or $(patsubst ~/%,$(HOME)/%,$(OUT)),report)
DIR  := $(OUT)/$(basename $(notdir $(PROFILE)))
WORK := $(DIR)/.work

# The notebooks of the report, in its order. Adding one to the report is adding it here; those before the analysis
# train, those of WITH stand before its conclusion.
NOTEBOOKS := 01_linear_probe 02_full_finetune 03_analysis
TRAINING  := $(filter-out 03_analysis,$(NOTEBOOKS))
# A notebook of WITH may be named as its file is, and has to be there.
once = $(if $1,$(firstword $1) $(call once,$(filter-out $(firstword $1),$1)))
override WITH := $(strip $(call once,$(filter-out $(NOTEBOOKS),$(patsubst %.ipynb,%,$(notdir $(WITH))))))
EVERY     := $(NOTEBOOKS) $(WITH)
$(foreach n,$(WITH),$(if $(wildcard notebooks/$n.ipynb),,$(error WITH names '$n', but there is no notebooks/$n.ipynb)))

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup report runs verify test test-all nbval nbval-reference lab bench lint clean FORCE

# What make or the shell would read as something else.
left := (
right := )
number := \#
SPECIAL := $(strip $(foreach c,: % ' " ` ; & | * ? [ ] { } ~ < > ! \ $(left) $(right) $(number) $$,$(findstring $c,$(DIR))))
ifneq ($(words $(DIR))$(SPECIAL),1)
$(error OUT and PROFILE are '$(OUT)' and '$(PROFILE)'; make cannot handle spaces$(SPECIAL:%= or %) in them)
endif

# --- parameters: what was typed after make, as it was typed ---

# report_lib declares them (`python -m report_lib study --table`); these are make's own.
PLACE := REPORT_RUNS REPORT_CACHE REPORT_CACHE_GIB REPORT_SKIP_UNDECODABLE REPORT_PROGRESS  # read from the environment
OWN   := $(PLACE) OUT WITH LAUNCHER LAB BUDGET KEEP RECORD PYTHON READY NOTEBOOKS PLANNED FINISHED PLACE
TYPED := $(filter-out $(OWN),$(foreach v,$(filter-out -%,$(.VARIABLES)),$(if $(filter command line,$(origin $v)),$v)))
# A $ in a value is a $: make would take it for a variable of its own.
$(foreach v,$(TYPED),$(eval override $v := $$(value $v)))
export $(TYPED)
export LAUNCHER BUDGET

# --- environment: the active one, or else .venv as requirements.lock says ---

ACTIVE := $(or $(VIRTUAL_ENV),$(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)))
ifeq ($(ACTIVE),)
PYTHON := .venv/bin/python
READY  := .venv/.ready
else
PYTHON := python
READY  :=
endif
export PYTHON
export PYTHONPATH := $(CURDIR):$(CURDIR)/report
# How one's own Python behaves, such as without docstrings or with warnings as errors, has no say.
unexport $(filter-out PYTHON PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE,$(filter PYTHON%,$(.VARIABLES)))
# Freed memory is reused, not returned: each training step takes the same hundreds of megabytes (a tenth of the time).
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 2147483647

.venv/.ready: requirements.lock pyproject.toml
	@echo "installing into .venv (some 6 GB, mostly torch; once)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: python3 is $$(python3 -V 2>&1); Python 3.11 or newer is needed" >&2; exit 2; }
	@test -x .venv/bin/python || python3 -m venv .venv
	@.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.lock \
	  | awk '/^(Collecting|Downloading|Installing)/ {printf "\r%-78.78s", $$0; fflush()} END {printf "\r%-78s\r", ""}' \
	  || { echo "error: not all packages could be installed into .venv; pip says above why not; mend that and make again" >&2; exit 2; }
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY)  ## make the environment (every target does so when it must)

help:  ## this list
	@echo "make TARGET [VARIABLE=value ...]"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-9s %s\n", $$1, $$2}'
	@echo "variables of make:"
	@echo "  OUT=report       where PROFILE/report.html and report.pdf go"
	@echo "  WITH=05_speed    further notebooks for the report"
	@echo "  LAUNCHER=...     a prefix for what trains, such as 'srun --gpus=1'"
	@echo "  BUDGET=240       seconds that make bench may take, about; KEEP=1 makes its figures the project's;  RECORD=.runs/<folder>   what make verify makes again"
	@echo "variables of a study (without a default: what its presets say):"
	@"$(PYTHON)" -m report_lib study --table 2>/dev/null | sed 's/^/  /' || echo "  (after make setup)"

# --- the report: profile -> parameters -> executed notebooks -> HTML, PDF, results.json ---

MADE := $(DIR)/report.html $(DIR)/report.pdf $(DIR)/report.png $(DIR)/results.json

# Two at once, unless -j says otherwise: results.json is written while the analysis is executed. What the training
# notebooks would train is looked up when they are to be executed; if that is nothing, they wait for none, three at once.
again = $(MAKE) -s --no-print-directory PLANNED=yes
report: $(DIR)/parameters.yaml  ## HTML, PDF and results.json of PROFILE
	@+$(again) -q $(TRAINING:%=$(DIR)/%.ipynb) 2>/dev/null || $(again) --what-if=$< $(WORK)/missing && \
	if test -f $(WORK)/missing && ! test -s $(WORK)/missing; then finished=yes jobs=3; else finished= jobs=2; fi && \
	$(again) $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$$jobs) $(MADE) FINISHED=$$finished
	@echo "up to date: $(MADE)"

LIB := $(wildcard report_lib/*.py report_lib/*/*.py)

# Written anew only when it says something new, so that a changed variable re-executes and an unchanged one doesn't.
$(DIR)/parameters.yaml: $(if $(PLANNED),,FORCE) | $(READY)
	@"$(PYTHON)" -c 'import importlib.util as u; raise SystemExit(not all(map(u.find_spec, "torch yaml papermill typst".split())))' \
	  || { echo "error: the active environment $(ACTIVE) lacks packages; run" \
	       "'python -m pip install -r requirements.lock' in it, or deactivate it" >&2; exit 2; }
	@"$(PYTHON)" -m report_lib study --make "$(TYPED)" --output $@

# Images decoded, weights checked: what is wrong with them is said in one sentence before any notebook starts. The file
# names the runs that were missing then.
$(WORK)/missing: $(DIR)/parameters.yaml $(wildcard report_lib/data/*.py report_lib/models/*.py report_lib/config/*.py)
	@mkdir -p $(WORK)
	@aside=$@.$$$$; "$(PYTHON)" -m report_lib study $< --prepare > $$aside && mv $$aside $@ || { rm -f $$aside; exit 2; }

# papermill leaves an output file even when a cell fails, so it writes aside, where no other make does, and with nobody's
# personal settings. Of its messages awk shows the progress bars; the others are for the log.
define execute
	@echo "executing notebooks/$*.ipynb"
	@aside=$(WORK)/$*.$$$$.ipynb; log=$(WORK)/$*.log; failed=$(DIR)/$*.failed.ipynb; rm -f $$failed; unset JPY_SESSION_NAME; \
	$(1) "$(PYTHON)" -m export.isolated "$(PYTHON)" -m export.execute notebooks/$*.ipynb $$aside $(DIR)/parameters.yaml 2>&1 \
	  | tee $$log \
	  | awk '/%\|/ {printf "\r%s", $$0; fflush(); bar = 1} END {if (bar) printf "\n"}' \
	  && mv $$aside $@ \
	  || { ! test -f $$aside || mv $$aside $$failed; why=$$(grep '^error: ' $$log | tail -n 1); \
	       echo "$${why:-error: notebooks/$*.ipynb stopped: $$(grep '[^[:space:]]' $$log | tail -n 1)}" >&2; \
	       ! test -f $$failed || echo "       as far as it came: $$failed; all messages: $$log" >&2; exit 1; }
endef

# What was missing is looked up anew after a kill, too, which makes no finished notebook old.
$(TRAINING:%=$(DIR)/%.ipynb): $(DIR)/%.ipynb: notebooks/%.ipynb $(DIR)/parameters.yaml $(LIB) | $(WORK)/missing
	$(call execute,$(LAUNCHER))

$(patsubst %,$(DIR)/%.ipynb,$(filter-out $(TRAINING),$(EVERY))): $(DIR)/%.ipynb: notebooks/%.ipynb $(DIR)/parameters.yaml $(LIB) \
    $(if $(FINISHED),,$(TRAINING:%=$(DIR)/%.ipynb)) | $(WORK)/missing
	$(call execute,)

# What these read beside the runs.
$(DIR)/03_analysis.ipynb: $(wildcard report/tuning/*.yaml) report/published.yaml
$(DIR)/05_speed.ipynb: $(wildcard report/bench/*.json)

# Their times are compared, so with make -j, too, those that train share no machine; with a launcher each has its own.
ifeq ($(LAUNCHER)$(FINISHED),)
previous :=
$(foreach n,$(TRAINING),$(if $(previous),$(eval $(DIR)/$n.ipynb: | $(DIR)/$(previous).ipynb))$(eval previous := $n))
endif

STYLE := $(wildcard report/export/*.py report/export/templates/*) report/metadata.yaml report/references.bib

# A pattern with several targets is one recipe that makes them all, in every version of make. They are made aside, in one
# go, and then take the places of the last ones, which make must not delete when that fails.
.PRECIOUS: $(DIR)/report.html $(DIR)/report.pdf $(DIR)/report.png
$(DIR)/%.html $(DIR)/%.pdf $(DIR)/%.png: $(EVERY:%=$(DIR)/%.ipynb) $(WORK)/parts $(WORK)/heading $(STYLE)
	@set --; while read -r field; do set -- "$$@" --set "$$field"; done < $(WORK)/heading; \
	"$(PYTHON)" -m export $(DIR) $* $(NOTEBOOKS:%=$(DIR)/%.ipynb) $(if $(WITH),--with $(WITH:%=$(DIR)/%.ipynb)) --link results.json "$$@"

# What the title page takes from the study.
$(WORK)/heading: $(DIR)/parameters.yaml $(LIB)
	@mkdir -p $(WORK); aside=$@.$$$$; "$(PYTHON)" -m report_lib study $< --heading > $$aside && mv $$aside $@ || { rm -f $$aside; exit 2; }

# Which notebooks the report is made of, and the pictures beside them; written only when these are others than last time.
$(WORK)/parts: FORCE
	@mkdir -p $(WORK); { echo "$(EVERY)"; find -L notebooks -type f $(foreach e,png jpg jpeg gif webp svg bmp,-iname '*.$e' -o) -false \
	  | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cksum; } > $@.$$$$ 2>/dev/null; cmp -s $@.$$$$ $@ && rm $@.$$$$ || mv $@.$$$$ $@

$(DIR)/results.json: $(DIR)/parameters.yaml $(LIB) $(wildcard report/tuning/*.yaml) report/published.yaml $(TRAINING:%=$(DIR)/%.ipynb)
	@"$(PYTHON)" -m report_lib results $< --published report/published.yaml --searches $(wildcard report/tuning/*.yaml) --output $@

# --- the runs alone, a job each: what a cluster is for ---

# One run of the study becomes one target, so that make -j keeps that many jobs in flight. What the store has is not
# trained again; afterwards, make report trains nothing. The last look is at the store itself, since a launcher may call
# a job done whose node has died. A make that is killed must not leave half of the list, so it is written aside.
$(WORK)/runs.mk: FORCE $(WORK)/missing
	@aside=$@.$$$$; "$(PYTHON)" -m report_lib study $(DIR)/parameters.yaml | awk '$$2 == "missing" && !seen[$$3]++ { \
	  printf "all: %d\n.PHONY: %d\n%d:\n\t@$$(LAUNCHER) \"$$(PYTHON)\" -m report_lib run --study $(DIR)/parameters.yaml --index %d\n", \
	  $$1, $$1, $$1, $$1} END {print "all:"}' > $$aside && mv $$aside $@ || { rm -f $$aside; exit 2; }

runs: $(WORK)/runs.mk  ## every run of PROFILE as a job of its own, through LAUNCHER if given; -j8 for eight at once
	@+status=0; $(MAKE) --no-print-directory -f $(WORK)/runs.mk all || status=$$?; \
	  "$(PYTHON)" -m report_lib study $(DIR)/parameters.yaml --complete && exit $$status

verify: $(DIR)/parameters.yaml  ## make one recorded run of PROFILE again, or RECORD=folder, and say whether it is the same
	@"$(PYTHON)" -m report_lib verify "$(or $(RECORD),$<)"

# --- the rest ---

TESTS = OMP_NUM_THREADS=1 "$(PYTHON)" -m pytest --dist loadfile --no-loadscope-reorder  # in tests/conftest.py's order

test: $(READY)  ## the tests; no network and no GPU needed; about 5 minutes on two cores
	@$(TESTS) -n 2 -m "not long"

test-all: test  ## and those that are long by nature: kills, planted faults, a browser, a Slurm
	@$(TESTS) -n 3 -m long  # which wait for kernels, browsers and clusters a quarter of the time

# The demo's notebooks, executed and committed, executed once more: every result in them must come out again. They are
# trained anew, in a store of their own, on the CPU, in float32 and in small steps: at Adam's default rate, rounding on
# another processor grows into points of accuracy. nbval-reference executes and keeps them after an intended change.
KEPT := $(sort $(wildcard tests/executed/*.ipynb))
headless = env -u JPY_SESSION_NAME REPORT_RUNS="$$folder/runs" REPORT_CACHE="$$folder/cache" "$(PYTHON)" -m

nbval: $(READY)  ## execute the committed executed notebooks again and compare every result; about 2 minutes
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	PYTHONPATH="tests:$$PYTHONPATH" $(headless) export.isolated "$(PYTHON)" -m pytest --nbval --timeout 0 -p nbval_results --nbval-current-env --color no $(KEPT)

nbval-reference: $(READY)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for name in $(basename $(notdir $(KEPT))); do \
	  echo "executing notebooks/$$name.ipynb"; \
	  $(headless) export.isolated "$(PYTHON)" -m export.execute "notebooks/$$name.ipynb" "$$folder/$$name.ipynb" \
	    tests/executed/parameters.yaml 2> "$$folder/log" || { cat "$$folder/log" >&2; exit 1; }; \
	  "$(PYTHON)" tests/nbval_results.py "$$folder/$$name.ipynb" "tests/executed/$$name.ipynb" || exit; \
	done

lab: $(READY)  ## JupyterLab on the notebooks; LAB=--no-browser and what else it is to be told
	@"$(PYTHON)" -m jupyterlab --notebook-dir=. $(LAB) notebooks/01_linear_probe.ipynb

bench: $(READY)  ## our training beside the published loop, on the same images; about 5 minutes
	@"$(PYTHON)" -m bench --make "$(TYPED)" $(if $(BUDGET),--budget "$(BUDGET)") $(if $(KEEP),--keep)

OURS := $(NOTEBOOKS:%=notebooks/%.ipynb) notebooks/04_explore.ipynb notebooks/05_speed.ipynb  # what others write is theirs
lint: $(READY)  ## ruff, mypy, and the conventions of the notebooks
	@"$(PYTHON)" -m ruff check . $(OURS)
	@"$(PYTHON)" -m ruff format --check . $(OURS)
	@"$(PYTHON)" -m mypy
	@"$(PYTHON)" -m pytest -q tests/test_notebooks.py

clean:  ## remove build leftovers and decoded images; finished runs, reports and downloads stay
	rm -rf report/*/.work report/*/*.failed.ipynb .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	if test -d .cache; then find .cache -mindepth 1 -maxdepth 1 -not -name torchvision -exec rm -rf {} +; fi
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
