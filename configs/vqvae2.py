"""VQ-VAE-2 with two levels of codes, no prior (Razavi et al.), as the pchVAE paper uses it."""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import pchvae_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("vqvae2", variant)
    config = pchvae_protocol(variant)
    config.model.name = "vqvae2"
    # Slightly more parameters than our pchVAE; `:paper` has the implementation's that it names.
    config.model.channels = 60  # at H/4 and H/8
    config.model.residual_blocks = 2
    config.model.residual_channels = 16
    config.model.num_codes = 128  # in each of the two codebooks
    config.model.code_dimension = 16
    config.model.decay = 0.99  # of the codebooks' moving averages
    config.model.commitment = 0.25
    if variant == "smoke":
        config.model.channels, config.model.num_codes = 8, 16
    elif variant == "paper":
        config.model.channels, config.model.residual_channels = 128, 32
        config.model.num_codes, config.model.code_dimension = 512, 64
    return config
