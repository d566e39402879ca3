# make            what there is to make
# make report     the demo report, on any machine
#
# Files are real targets: what is up to date is not made again, and what failed never looks finished.

PROFILE ?= demo
OUT     ?= report
DIR     := $(OUT)/$(PROFILE)
WORK    := $(DIR)/.work

# The notebooks of the report, in its order. Adding one to the report is adding it here.
NOTEBOOKS := 01_linear_probe 02_full_finetune 03_analysis $(WITH)
TRAINING  := 01_linear_probe 02_full_finetune

# How the PDF is typeset: typst, which pip installs, or latex, which is nbconvert's own path and needs TeX.
PDF ?= typst

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup report runs verify test nbval nbval-reference lab bench lint clean FORCE

# What make or the shell would read as something else.
left := (
right := )
number := \#
SPECIAL := $(strip $(foreach c,: % ' " ` ; & | * ? [ ] < > ! \ $(left) $(right) $(number) $$,$(findstring $c,$(DIR))))
ifneq ($(words $(DIR))$(SPECIAL),1)
$(error OUT and PROFILE are '$(OUT)' and '$(PROFILE)'; make cannot handle spaces$(SPECIAL:%= or %) in them)
endif

ifeq ($(PDF),latex)
ifeq ($(shell command -v xelatex),)
$(error PDF=latex needs xelatex, which is not installed here; without PDF=latex the report needs no TeX)
endif
else ifneq ($(PDF),typst)
$(error PDF is '$(PDF)'; allowed are typst and latex)
endif

# --- environment: the active one, or else .venv as requirements.lock says ---

ACTIVE := $(or $(VIRTUAL_ENV),$(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)))
ifeq ($(ACTIVE),)
PYTHON := $(CURDIR)/.venv/bin/python
READY  := .venv/.ready
else
PYTHON := python
READY  :=
endif

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
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-8s %s\n", $$1, $$2}'
	@echo "variables (default: what the profile says)"
	@echo "  PROFILE=demo|cifar10|yours   a file of report/profiles"
	@echo "  DATA=digits|cifar10|PATH     images: a source, or a train/<class>/*, test/<class>/* tree or archive of one"
	@echo "  DATA_NAME=...                what the report calls them"
	@echo "  WEIGHTS=imagenet|embedded|none|PATH   pretrained AlexNet"
	@echo "  RECIPES=published,corrected,tuned   which are run; the approach sections present corrected"
	@echo "  BUDGETS=10,50,250   labelled images a class, for the curve of few labels;  DEFECTS=linear_probe,full_finetune;"
	@echo "      none switches either off;  EXTRA_SEEDS=0,1   seeds of these runs, some of SEEDS"
	@echo "  SEEDS=0,1,2  EPOCHS=10  SIZE=224 (pixels a side)  BATCH=128  PER_CLASS=500 (images; 0: all)  DEVICE=auto|cuda|mps|cpu"
	@echo "  OUT=report   where PROFILE/report.html and report.pdf go;  RUNS=.runs   the store of finished runs"
	@echo "  PDF=typst|latex   how the PDF is typeset; latex is nbconvert's own path and needs xelatex"
	@echo "  WITH=05_speed   further notebooks for the report"
	@echo "  BUDGET=190   seconds that make bench may take, about; DATA, WEIGHTS, SIZE and DEVICE hold for it too"
	@echo "  LAUNCHER=... a prefix for each training notebook, such as 'srun --gpus=1'"

# --- the report: profile -> parameters -> executed notebooks -> one notebook -> HTML, PDF, results.json ---

report: $(DIR)/report.html $(DIR)/report.pdf $(DIR)/report.png $(DIR)/results.json  ## HTML, PDF and results.json of PROFILE
	@echo "up to date: $^"

LIB := $(wildcard report_lib/*.py)
export LAUNCHER PYTHON BUDGET RECIPES BUDGETS DEFECTS EXTRA_SEEDS PROFILE DATA DATA_NAME WEIGHTS SEEDS EPOCHS SIZE BATCH PER_CLASS DEVICE RUNS
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
given = $(if $($(2)),$(1) "$$$(2)")

# Written anew only when it says something new, so that a changed variable re-executes and an unchanged one doesn't.
$(DIR)/parameters.yaml: FORCE | $(READY)
	@$(PYTHON) -c 'import importlib.util as u; raise SystemExit(not all(map(u.find_spec, "torch yaml papermill typst".split())))' \
	  || { echo "error: the active environment $(ACTIVE) lacks packages; run" \
	       "'python -m pip install -r requirements.lock' in it, or deactivate it" >&2; exit 2; }
	@$(PYTHON) -m report_lib parameters --output $@ --profile "$$PROFILE" $(call given,--data,DATA) \
	  $(call given,--data-name,DATA_NAME) $(call given,--weights,WEIGHTS) $(call given,--seeds,SEEDS) \
	  $(call given,--epochs,EPOCHS) $(call given,--image-size,SIZE) $(call given,--batch-size,BATCH) $(call given,--per-class,PER_CLASS) \
	  $(call given,--device,DEVICE) $(call given,--runs,RUNS) $(call given,--recipes,RECIPES) \
	  $(call given,--extra-seeds,EXTRA_SEEDS) $(call given,--budgets,BUDGETS) $(call given,--defects,DEFECTS)

# Images decoded, weights checked: what is wrong with them is said in one sentence before any notebook starts.
$(WORK)/prepared: $(DIR)/parameters.yaml report_lib/recipe.py report_lib/archives.py report_lib/decoded.py report_lib/sources.py report_lib/data.py report_lib/model.py
	@mkdir -p $(WORK)
	@$(PYTHON) -m report_lib prepare $<
	@touch $@

# papermill leaves an output file even when a cell fails, so it writes aside, where no other make does. Of its messages awk shows the progress
# bars; the others, tracebacks among them, are for the log, whose last line is the sentence that counts.
define execute
	@echo "executing notebooks/$*.ipynb"
	@aside=$(WORK)/$*.$$$$.ipynb; log=$(WORK)/$*.log; unset JPY_SESSION_NAME; \
	$(1) $(PYTHON) -m papermill notebooks/$*.ipynb $$aside -f $(DIR)/parameters.yaml --cwd notebooks \
	    -k python3 --no-progress-bar --log-output 2>&1 \
	  | tee $$log \
	  | awk '/%\|/ {printf "\r%s", $$0; fflush(); bar = 1} END {if (bar) printf "\n"}' \
	  && rm -f $(DIR)/$*.failed.ipynb && mv $$aside $@ \
	  || { mv $$aside $(DIR)/$*.failed.ipynb 2>/dev/null; \
	       echo "error: notebooks/$*.ipynb stopped: $$(grep '[^[:space:]]' $$log | tail -n 1)" >&2; \
	       echo "       as far as it came: $(DIR)/$*.failed.ipynb; all messages: $$log" >&2; exit 1; }
endef

EXECUTED := $(NOTEBOOKS:%=$(DIR)/%.ipynb)

$(TRAINING:%=$(DIR)/%.ipynb): $(DIR)/%.ipynb: notebooks/%.ipynb $(WORK)/prepared $(LIB)
	$(call execute,$(LAUNCHER))

$(filter-out $(TRAINING:%=$(DIR)/%.ipynb),$(EXECUTED)): $(DIR)/%.ipynb: notebooks/%.ipynb $(TRAINING:%=$(DIR)/%.ipynb)
	$(call execute,)

# What these read beside the runs.
$(DIR)/03_analysis.ipynb: $(wildcard report/tuning/*.csv)
$(DIR)/05_speed.ipynb: $(wildcard report/bench/*.json)

# Their times are compared, so with make -j, too, they share no machine; with a launcher each has its own.
ifeq ($(LAUNCHER),)
$(DIR)/02_full_finetune.ipynb: | $(DIR)/01_linear_probe.ipynb
endif

$(WORK)/report.ipynb: report/merge.py $(EXECUTED)
	@$(PYTHON) report/merge.py --output $@ $(EXECUTED)

STYLE := $(addprefix report/,exporter.py assemble.py drawing.py webfonts.py latex.py metadata.yaml references.bib \
  templates/report.html templates/report.typ)

# Says which of the two made the PDF, so that changing PDF makes it anew.
$(WORK)/typesetter: FORCE
	@mkdir -p $(WORK)
	@test "$$(cat $@ 2>/dev/null)" = "$(PDF)" || echo "$(PDF)" > $@

# A pattern with several targets is one recipe that makes them all, in every version of make. nbconvert writes in
# place, so it writes aside.
$(DIR)/%.html $(DIR)/%.pdf $(DIR)/%.png: $(WORK)/%.ipynb $(STYLE) $(WORK)/typesetter
	@aside=$(WORK)/rendered.$$$$; log=$(WORK)/render.log; \
	PYTHONPATH=report $(PYTHON) -m nbconvert --log-level=WARN --to exporter.Report --output-dir $$aside --output $* $< 2>$$log \
	  || { echo "error: $@ could not be made: $$(grep '[^[:space:]]' $$log | tail -n 1) (all: $$log)" >&2; exit 1; }; \
	$(by_tex) mv $$aside/$*.html $$aside/$*.pdf $$aside/*.png $(DIR) && rm -r $$aside

ifeq ($(PDF),latex)
define by_tex
PYTHONPATH=report $(PYTHON) report/latex.py --output $$aside/$*.ipynb $< && ( cd $$aside && \
	  PATH="$$($(PYTHON) -c 'import os, pypandoc; print(os.path.dirname(pypandoc.get_pandoc_path()))'):$$PATH" \
	  $(PYTHON) -m nbconvert --log-level=WARN --to pdf --TemplateExporter.exclude_input_prompt=True \
	    --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags output-only $*.ipynb ) 2>$(WORK)/latex.log \
	  || { echo "error: $(DIR)/$*.pdf could not be made by TeX (all: $(WORK)/latex.log)" >&2; exit 1; };
endef
endif

$(DIR)/results.json: $(DIR)/parameters.yaml $(EXECUTED)
	@$(PYTHON) -m report_lib results $< --output $@

# --- the runs alone, a job each: what a cluster is for ---

# One line of parameters.yaml's study becomes one target, so that make -j keeps that many jobs in flight. What the
# store has is not trained again; afterwards, make report trains nothing. The last look is at the store itself, since a
# launcher may call a job done whose node has died. A make that is killed must not leave half of the list, so it is
# written aside.
$(WORK)/runs.mk: $(WORK)/prepared report_lib/plan.py report_lib/profiles.py
	@aside=$@.$$$$; $(PYTHON) -m report_lib jobs $(DIR)/parameters.yaml | awk '{gsub(/\$$/, "$$$$"); \
	  printf "all: %d\n.PHONY: %d\n%d:\n\t@$$(LAUNCHER) $$(PYTHON) -m report_lib run %s\n", NR, NR, NR, $$0}' > $$aside \
	  && mv $$aside $@ || { rm -f $$aside; exit 2; }

runs: $(WORK)/runs.mk  ## every run of PROFILE as a job of its own, through LAUNCHER if given; -j8 for eight at once
	@+status=0; $(MAKE) --no-print-directory -f $(WORK)/runs.mk all || status=$$?; \
	  $(PYTHON) -m report_lib complete $(DIR)/parameters.yaml && exit $$status

verify: $(DIR)/parameters.yaml  ## make one recorded run of PROFILE again, or RECORD=folder, and say whether it is the same
	@$(PYTHON) -m report_lib verify "$(or $(RECORD),$<)" $(call given,--device,DEVICE)

# --- the rest ---

test: $(READY)  ## all tests; no network and no GPU needed; 15 to 20 minutes
	@# In the order of tests/conftest.py.
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The demo's notebooks, executed and committed, executed once more: every result in them must come out again. They are
# trained anew, in a store of their own, on the CPU, in float32 and in small steps: at Adam's default rate, rounding on
# another processor grows into points of accuracy. nbval-reference executes and keeps them after an intended change.
KEPT := $(patsubst notebooks/%,tests/executed/%,$(sort $(wildcard notebooks/0[1-4]*.ipynb)))
headless = env -u JPY_SESSION_NAME REPORT_RUNS="$$folder/runs" REPORT_CACHE="$$folder/cache" $(PYTHON) -m

nbval: $(READY)  ## execute the committed executed notebooks again and compare every result; about 2 minutes
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	PYTHONPATH="tests:$$PYTHONPATH" $(headless) pytest --nbval -p nbval_results --nbval-current-env --color no $(KEPT)

nbval-reference: $(READY)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m report_lib parameters --profile demo --device cpu --output "$$folder/parameters.yaml" && \
	for name in $(basename $(notdir $(KEPT))); do \
	  echo "executing notebooks/$$name.ipynb"; \
	  $(headless) papermill "notebooks/$$name.ipynb" "$$folder/$$name.ipynb" -f "$$folder/parameters.yaml" \
	    -p precision float32 -p learning_rate 0.0001 --cwd notebooks -k python3 --no-progress-bar --log-level ERROR || exit; \
	  $(PYTHON) tests/nbval_results.py "$$folder/$$name.ipynb" "tests/executed/$$name.ipynb" || exit; \
	done

lab: $(READY)  ## JupyterLab on the notebooks; LAB=--no-browser and what else it is to be told
	@$(PYTHON) -m jupyterlab --notebook-dir=. $(LAB) notebooks/01_linear_probe.ipynb

bench: $(READY)  ## our training beside the published loop, on the same images; about 4 minutes
	@PYTHONPATH=report:$(CURDIR) $(PYTHON) -m bench $(call given,--data,DATA) $(call given,--weights,WEIGHTS) \
	  $(call given,--image-size,SIZE) $(call given,--device,DEVICE) $(call given,--budget,BUDGET)

lint: $(READY)  ## ruff, mypy, and whether the notebooks are committed without outputs
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -m pytest -q tests/test_notebooks.py

clean:  ## remove build leftovers and decoded images; finished runs, reports and downloads stay
	rm -rf report/*/.work report/*/*.failed.ipynb .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	if test -d .cache; then find .cache -mindepth 1 -maxdepth 1 -not -name torchvision -exec rm -rf {} +; fi
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
