"""PyTorch twins of jaxad's systems: the same networks and losses, in PyTorch's best CPU setting."""

import importlib
from typing import Any

from torch_systems.twin import Twin

#: `config.model.name` -> module and class.
_TWINS = {
    "pchvae": ("hierarchical_vae", "PchVAE"),
    "chvae": ("hierarchical_vae", "ConditionalVAE"),
    "highvae": ("hierarchical_vae", "HighVAE"),
    "lowvae": ("hierarchical_vae", "LowVAE"),
    "vqvae2": ("vqvae2", "VQVAE2"),
    "ae": ("ae", "AutoEncoder"),
    "fanogan": ("fanogan", "FAnoGAN"),
    "ganomaly": ("ganomaly", "GANomaly"),
    "aeflow": ("aeflow", "AEFlow"),
    "fastflow": ("fastflow", "FastFlow"),
    "differnet": ("differnet", "DifferNet"),
    "padim": ("padim", "PaDiM"),
    "patchcore": ("patchcore", "PatchCore"),
}
SYSTEMS = tuple(_TWINS)


def make_twin(config: dict[str, Any]) -> Twin:
    """Returns the twin of the system that a config, plain dicts, names; its weights are random."""
    module, name = _TWINS[config["model"]["name"]]
    return getattr(importlib.import_module(f"torch_systems.{module}"), name)(config)
