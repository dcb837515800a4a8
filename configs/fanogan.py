"""f-AnoGAN: a Wasserstein GAN, then an encoder into its latent space (Schlegl et al. 2019).

    python launch.py --config=fanogan:demo --workdir=runs/fanogan

takes minutes on two cores, too short for a GAN to converge. Expect an AUROC of .581 on
`test_objects` and .612 on `test_lesions`, or .598 and .636 corrected for slice position (means of
three seeds).
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_protocol, autoencoder_sizes


def get_config(variant: str = "") -> ConfigDict:
    check_variant("fanogan", variant)
    config = aeflow_protocol(variant)
    config.model.name = "fanogan"
    autoencoder_sizes(config, variant)
    config.model.critic_norm = "group"  # or "layer", "none"
    config.model.bounded_code = False  # True: tanh at the end of the encoder
    config.model.gradient_penalty = 10.0
    config.model.kappa = 1.0  # weight of the critic's features in loss and score
    # The GAN as in Gulrajani et al. 2017.
    config.optim.learning_rate, config.optim.weight_decay = 1e-4, 0.0
    config.optim.b1, config.optim.b2 = 0.0, 0.9
    config.optim.networks.encoder = ConfigDict({"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999})
    config.train.updates.critic = (0.0, 0.7, 1)
    config.train.updates.generator = (0.0, 0.7, 5)
    config.train.updates.encoder = (0.7, 1.0, 1)
    if variant == "demo":
        config.train.num_epochs = 4.0
        config.optim.learning_rate = 5e-4
        config.model.critic_norm = "none"
    elif variant == "paper":
        config.model.critic_norm, config.model.bounded_code = "layer", True  # its authors' code
        config.optim.networks.encoder.learning_rate = 5e-5
    return config
