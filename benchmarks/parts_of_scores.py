"""Prints the AUROC of every part of the score in the runs of a study.

    python benchmarks/parts_of_scores.py --study=runs/table1 --split=test_objects

One row per experiment: means over its runs, not position-corrected.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

#: Columns behind the score that are not its parts.
NOT_PARTS = {"reconstruction_psnr", "reconstruction_ssim", "score_position_corrected"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="folder of a study")
    parser.add_argument("--split", default="test_objects")
    options = parser.parse_args()
    for experiment in sorted((options.study / "runs").iterdir()):
        aurocs: dict[str, list[float]] = {}
        for path in sorted(experiment.glob(f"seed_*/eval/{options.split}/scores.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            labels = [int(row["label"]) for row in rows]
            names = list(rows[0])
            for name in set(names[names.index("score") :]) - NOT_PARTS:
                values = [float(row[name]) for row in rows]
                aurocs.setdefault(name, []).append(roc_auc_score(labels, values))
        parts = ", ".join(f"{name} {np.mean(aurocs[name]):.3f}" for name in sorted(aurocs))
        print(f"{experiment.name}: {parts}")


if __name__ == "__main__":
    main()
