"""AE-FLOW's ablations: subnet and reconstruction loss (its Table 3), alpha and beta (Figure 7).

    python launch.py --mode=study --config=studies/aeflow_ablation:demo --workdir=runs/ablation

`:paper` is on OCT, `:chest` on the paper's chest X-rays.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

#: Experiment names have them in percent.
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Changes to AE-FLOW with the mean squared error and alpha .5.
CHANGES = {
    "resnet_mse": {"subnet": "resnet"},
    "resnet_ssim": {"subnet": "resnet", "reconstruction_loss": "ssim"},
    "conv_mse": {"subnet": "conv"},
    "conv_ssim": {"subnet": "conv", "reconstruction_loss": "ssim"},
    **{f"alpha_{100 * alpha:.0f}": {"alpha": alpha} for alpha in ALPHAS if alpha != 0.5},
    "random_encoder": {"weights": "random"},
}
#: The best of the paper's Table 3; its text does not give the others.
PUBLISHED = {"paper": ("resnet_mse", 0.9815), "chest": ("conv_ssim", 0.9200)}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/aeflow_ablation", variant, more=("chest",))
    subnet = "resnet" if variant in PUBLISHED else "conv"
    experiments = {}
    for name, changes in CHANGES.items():
        experiments[name] = experiment(f"aeflow:{variant}" if variant else "aeflow")
        experiments[name].model.update(subnet=subnet, reconstruction_loss="mse", alpha=0.5)
        experiments[name].model.update(changes)
    config = study(experiments, seeds=range(3))
    config.reference = f"{subnet}_mse"
    if variant in PUBLISHED:
        name, auroc = PUBLISHED[variant]
        config.published[name] = {"auroc": (auroc,)}
    # The score at every beta follows from its two components.
    rows = (config.reference if a == 0.5 else f"alpha_{100 * a:.0f}" for a in ALPHAS)
    config.heat_map.rows, config.heat_map.row_values = tuple(rows), ALPHAS
    config.heat_map.row_name, config.heat_map.column_name = "alpha", "beta"
    config.heat_map.parts = ("flow_score", "reconstruction_score")
    if variant in ("demo", "smoke"):
        config.seeds = (0,)
    if variant == "smoke":
        config.bootstrap_resamples, config.num_slices = 50, 1
    return config
