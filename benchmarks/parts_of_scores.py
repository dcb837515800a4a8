"""AUROC of every part of the score that a study's runs wrote: which part detects.

    python benchmarks/parts_of_scores.py --study=runs/table1 --split=test_objects

One row an experiment, the mean over its runs; raw, not position-corrected.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

NOT_SCORES = ("id", "group", "position", "label", "score_position_corrected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="folder of a study")
    parser.add_argument("--split", default="test_objects")
    options = parser.parse_args()
    for experiment in sorted((options.study / "runs").iterdir()):
        found: dict[str, list[float]] = {}
        for path in sorted(experiment.glob(f"seed_*/eval/{options.split}/scores.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            labels = [int(row["label"]) for row in rows]
            for name in rows[0].keys() - set(NOT_SCORES):
                values = [float(row[name]) for row in rows]
                found.setdefault(name, []).append(roc_auc_score(labels, values))
        parts = ", ".join(f"{name} {np.mean(found[name]):.3f}" for name in sorted(found))
        print(f"{experiment.name}: {parts}")


if __name__ == "__main__":
    main()
