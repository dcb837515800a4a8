"""pchVAE: high- and low-level image component decomposition (Zimmerer, Petersen and Maier-Hein).

    python launch.py --config=pchvae:demo --workdir=runs/pchvae

takes a minute and a half on two cores. Expect an AUROC of .754 on `test_objects` and .621 on
`test_lesions`, or .826 and .683 corrected for slice position.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import pchvae_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("pchvae", variant)
    config = pchvae_protocol(variant)
    config.model.name = "pchvae"
    config.model.widths = (16, 24, 48, 64)  # channels at H/2, H/4, H/8, H/16
    config.model.depths = (0, 0, 1, 1)  # residual 3x3 convolutions per block at these levels
    config.model.latent_channels = (16, 1)  # z1 at H/16, z2 at H/4
    config.model.variance = 0.0056  # c, in squared units of the [0, 1] image
    config.model.weights = (1.0, 1.0, 1.0, 1.0, 1.0)  # lambda 1 to 5
    config.model.condition_z2 = True  # z2's posterior sees z1: f2(x, z1) in Eq. 8
    config.model.image_score = "elbo"  # the paper's; or "reconstruction", "high_level", "low_level"
    config.model.score_samples = 0  # latents at their means
    config.model.norm = "none"
    if variant == "paper":
        config.model.score_samples = 4  # estimates the expectation of Eq. 8
    elif variant == "smoke":
        config.model.widths = (8, 8, 8, 8)
    return config
