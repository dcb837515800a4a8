"""PyTorch twins of jaxad's systems: the same networks and losses, in PyTorch's best CPU setting."""

import importlib
from typing import Any

from torch_systems.twin import Twin

#: `config.model.name` -> module and class.
_TWINS = {
    "pchvae": ("pchvae", "PchVAE"),
    "chvae": ("chvae", "ChVAE"),
    "highvae": ("highvae", "HighVAE"),
    "lowvae": ("lowvae", "LowVAE"),
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
    """The twin of the system that a config names, as plain dicts; its weights are torch's own."""
    module, name = _TWINS[config["model"]["name"]]
    return getattr(importlib.import_module(f"torch_systems.{module}"), name)(config)
