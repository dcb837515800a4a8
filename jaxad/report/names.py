"""Names of systems and metrics in reports and tables."""

import logging

from ml_collections import ConfigDict

from jaxad.errors import UserError
from jaxad.evaluate.metrics import METRICS, Metric, load_metrics

logger = logging.getLogger(__name__)


SYSTEMS = {
    "pchvae": "pchVAE",
    "chvae": "chVAE",
    "highvae": "High VAE",
    "lowvae": "Low VAE",
    "vqvae2": "VQ-VAE-2",
    "aeflow": "AE-FLOW",
    "ae": "AE",
    "fanogan": "f-AnoGAN",
    "ganomaly": "GANomaly",
    "differnet": "DifferNet",
    "fastflow": "FastFlow",
}


def reported_metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """Returns the metrics of a run; if its own cannot be imported, jaxad's with a warning."""
    try:
        return load_metrics(config)
    except UserError as error:
        logger.warning(f"{error} The report shows only the stored values of these metrics.")
        return METRICS
