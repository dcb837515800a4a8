"""GANomaly: encoder, decoder and second encoder against a discriminator (Akcay et al. 2018).

    python launch.py --config=ganomaly:demo --workdir=runs/ganomaly

takes minutes on two cores, too short for a GAN to converge. Expect an AUROC of .504 on
`test_objects` and .510 on `test_lesions` (means of three seeds).
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_protocol, autoencoder_sizes


def get_config(variant: str = "") -> ConfigDict:
    check_variant("ganomaly", variant)
    config = aeflow_protocol(variant)
    config.model.name = "ganomaly"
    autoencoder_sizes(config, variant)
    config.model.adversarial = 1.0  # weights of the generator's losses
    config.model.contextual = 50.0
    config.model.encoding = 1.0
    config.model.code_distance = "absolute"  # the paper's; or "squared", its authors' code
    config.optim.learning_rate, config.optim.b1, config.optim.weight_decay = 2e-4, 0.5, 0.0
    if variant == "demo":
        config.train.num_epochs = 2.0
    elif variant == "paper":
        config.train.num_epochs = 15.0
        config.model.latents = 100
        # As its authors' code: channels double down to 4 x 4, without further convolutions.
        config.model.widths, config.model.depth = (64, 128, 256, 512, 1024, 2048), 0
    return config
