"""Table 1 of AE-FLOW (Zhao, Ding and Zhang 2023) on the same data, with PaDiM and PatchCore.

    python launch.py --mode=study --config=studies/aeflow_table1:demo --workdir=runs/aeflow_table1

`:paper` is on OCT, `:chest` on the paper's chest X-rays.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

#: Best AUC of AE-FLOW's Table 3 on OCT and chest X-rays.
AUROC = {"paper": 0.9815, "chest": 0.9200}
#: Table 4, mean and standard deviation over folds; of OCT's AUC the text gives the deviation alone.
FOLDS = {
    "f1": {"paper": (0.9513, 0.0038), "chest": (0.8662, 0.0235)},
    "accuracy": {"paper": (0.9252, 0.0061), "chest": (0.8180, 0.0414)},
    "sensitivity": {"paper": (0.9556, 0.0125), "chest": (0.9218, 0.0251)},
    "specificity": {"paper": (0.8340, 0.0458), "chest": (0.6455, 0.1420)},
    "auroc": {"chest": (0.8977, 0.0168)},
}
SYSTEMS = ("ae", "fanogan", "ganomaly", "differnet", "fastflow", "aeflow", "padim", "patchcore")


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/aeflow_table1", variant, more=("chest",))
    suffix = f":{variant.replace('chest', 'paper')}" if variant else ""
    experiments = {name: experiment(f"{name}{suffix}") for name in SYSTEMS}
    if variant == "chest":
        experiments["aeflow"] = experiment("aeflow:chest")
        for one in experiments.values():
            one.data.name = "chestxray"
    # `lengths` below keeps the length of each system's own config.
    epochs = {name: one.train.num_epochs for name, one in experiments.items()}
    for one in experiments.values():
        one.train.num_epochs = epochs["aeflow"]
        one.cpu_devices = 2  # one process runs all; most are faster on two
        if variant == "smoke":
            one.data.image_size = 64  # the smallest that all systems take
    config = study(experiments, seeds=range(3))
    for name in SYSTEMS:
        config.lengths[name] = epochs[name] / epochs["aeflow"]
    config.reference = "aeflow"
    if variant in AUROC:
        folds = {f"five_fold_{name}": of[variant] for name, of in FOLDS.items() if variant in of}
        config.published.aeflow = {"auroc": (AUROC[variant],), **folds}
    if variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
