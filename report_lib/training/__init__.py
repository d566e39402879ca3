"""The training loop, frozen features, checkpoints, device and precision."""

from report_lib.training.code import check_unchanged, code_hash, differs
from report_lib.training.device import Place, pick_device, place
from report_lib.training.features import frozen_features
from report_lib.training.loop import (
    Diverged,
    History,
    Step,
    Watch,
    epochs,
    predict,
    score,
    selects,
    step,
    train,
    train_epoch,
)
from report_lib.training.precision import pick_precision
from report_lib.training.task import Task, features_of, prepare
