"""The metrics of a report."""

import logging

from ml_collections import ConfigDict

from jaxad.errors import UserError
from jaxad.evaluate.metrics import METRICS, Metric, load_metrics

logger = logging.getLogger(__name__)


def reported_metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """Returns the metrics of a run; if its own cannot be imported, jaxad's with a warning."""
    try:
        return load_metrics(config)
    except UserError as error:
        logger.warning(f"{error} The report shows only the stored values of these metrics.")
        return METRICS
