"""A network, its weights, what of it is trained, and where its frozen part ends."""

from report_lib.models.looks import flops, layer_changes, summary
from report_lib.models.networks import (
    Standardised,
    build,
    cut,
    head_of,
    like,
    normalises,
    origin_of,
    outline,
    set_head,
    set_mode,
    stages,
    train_only,
    trained_by,
    trained_names,
    width_below,
)
from report_lib.models.weights import Weights, bare, load_weights, of_trunk, weights_sha256
