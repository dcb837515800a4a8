"""VQ-VAE-2 (Razavi et al. 2019) without its prior, as in the pchVAE paper: two levels of codes.

    python launch.py --config=vqvae2:demo --workdir=runs/vqvae2

takes minutes on two cores. Expect an AUROC of .771 on `test_objects` and .633 on `test_lesions`, or
.852 and .705 corrected for slice position.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import pchvae_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("vqvae2", variant)
    config = pchvae_protocol(variant)
    config.model.name = "vqvae2"
    # Slightly more parameters than pchVAE; `:paper` has those of the implementation it names.
    config.model.channels = 60  # at H/4 and H/8
    config.model.residual_blocks = 2
    config.model.residual_channels = 16
    config.model.num_codes = 128  # per codebook, of which there are two
    config.model.code_dimension = 16
    config.model.decay = 0.99  # of the codebooks' moving averages
    config.model.commitment = 0.25
    if variant == "smoke":
        config.model.channels, config.model.num_codes = 8, 16
    elif variant == "paper":
        config.model.channels, config.model.residual_channels = 128, 32
        config.model.num_codes, config.model.code_dimension = 512, 64
    return config
