"""A whole run but for its test, without a record: what is measured here, and judged by report/tuning/search.py."""

from report_lib import data, models, training
from report_lib.config import Config
from report_lib.training import loop


def trained(
    config: Config, images: data.Images, weights: models.Weights, place: training.Place
) -> tuple[training.Task, training.History]:
    """Raises Diverged if a loss is no number."""
    net = models.build(config, images.classes, weights)
    models.train_only(net, config)
    task = loop.begin(net, images, config, place)
    *_, history = loop.train(task, config, place)
    return task, history
