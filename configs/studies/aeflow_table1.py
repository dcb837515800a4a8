"""Table 1 of AE-FLOW (Zhao, Ding and Zhang 2023) on the same data, with PaDiM and PatchCore.

    python launch.py --mode=study --config=studies/aeflow_table1:demo --workdir=runs/aeflow_table1

docs/results.md has its tables, with the training time of each system. `:paper` is on OCT, `:chest`
on the paper's chest X-rays.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

#: AE-FLOW's AUC on the test set, best of its Table 3: variant -> OCT, chest X-rays.
PUBLISHED = {"paper": 0.9815, "chest": 0.9200}
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
    if variant in PUBLISHED:
        config.published.aeflow = {"auroc": (PUBLISHED[variant],)}
    if variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
