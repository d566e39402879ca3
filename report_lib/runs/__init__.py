"""Finished runs: the store, what trains a run that it lacks, and Study, which says which runs and reads them back."""

from report_lib.runs.store import Run
from report_lib.runs.study import Runs, Study
from report_lib.runs.train import make, run, run_name
from report_lib.runs.trained import load_model, predict, predictor
from report_lib.runs.verify import verify
