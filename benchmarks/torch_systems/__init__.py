"""PyTorch twins of jaxad's systems: the same networks and losses, in PyTorch's best CPU setting."""

import importlib
from typing import Any

from torch_systems.twin import Twin

#: `config.model.name` -> module and class.
_TWINS = {
    "ae": ("ae", "AutoEncoder"),
    "pchvae": ("hierarchical_vae", "PchVAE"),
    "chvae": ("hierarchical_vae", "ConditionalVAE"),
    "highvae": ("hierarchical_vae", "HighVAE"),
    "lowvae": ("hierarchical_vae", "LowVAE"),
    "vqvae2": ("vqvae2", "VQVAE2"),
    "fastflow": ("fastflow", "FastFlow"),
    "aeflow": ("aeflow", "AEFlow"),
    "differnet": ("differnet", "DifferNet"),
}
SYSTEMS = tuple(_TWINS)


def make_twin(config: dict[str, Any]) -> Twin:
    """The twin of the system that a config names, as plain dicts; its weights are torch's own."""
    module, name = _TWINS[config["model"]["name"]]
    return getattr(importlib.import_module(f"torch_systems.{module}"), name)(config)
