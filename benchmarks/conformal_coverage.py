"""Measures the coverage of conformal decisions on the scores of a run's `val` split.

    python launch.py --config=configs/pchvae.py:demo --workdir=runs/demo  # 120 patients in val
    python benchmarks/conformal_coverage.py --workdir=runs/demo

The patients are split at random, many times, into a half that calibrates and a new half. Random
halves of one set of patients are exchangeable whatever the scores are: this checks that thresholds
keep their guarantee on real scores, with ties and patients of different sizes, not that another
site's patients are exchangeable with these. The number of new patients called anomalous follows a
beta-binomial distribution over the splits; `p` is that of a chi-squared test against it.
"""

import argparse
import math

import numpy as np
from scipy import stats

from jaxad.calibration.calibration_set import read_calibration_set
from jaxad.calibration.conformal import calibrate, group_maxima
from jaxad.storage.workdir import Workdir
from jaxad.types import group_numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    options = parser.parse_args()
    stored = read_calibration_set(Workdir(options.workdir).calibration)
    if stored is None or not stored.is_own:
        parser.error(f"'{options.workdir}' is not calibrated on its own val; run --mode=evaluate.")
    groups, scores = group_numbers(stored.groups), stored.scores
    patients = int(groups.max()) + 1
    half = patients // 2
    print(
        f"{options.workdir}: {patients} patients of {stored.source}, {len(scores)} slices; "
        f"{half} calibrate, {patients - half} are new, {options.splits} random splits\n"
    )
    print(
        "| requested | patients: guarantee | realised, mean ± standard error | s.d. | s.d., theory "
        "| p | images: realised, mean ± standard error | s.d. |\n" + "|---" * 8 + "|"
    )
    for rate in options.rates:
        rng = np.random.default_rng(0)
        called, of_images = [], []
        for _ in range(options.splits):
            order = rng.permutation(patients)
            chosen = np.isin(groups, order[:half])
            calibration = calibrate(
                scores[chosen], np.unique(groups[chosen], return_inverse=True)[1]
            )
            new, new_groups = scores[~chosen], np.unique(groups[~chosen], return_inverse=True)[1]
            above = group_maxima(new, new_groups) > calibration.patient_threshold(rate)
            called.append(int(above.sum()))
            shares = np.bincount(new_groups, new > calibration.image_threshold(rate))
            of_images.append(float(np.mean(shares / np.bincount(new_groups))))
        count, number = patients - half, round(calibration.realised_rate_law(rate).args[0])
        law = stats.betabinom(count, number, half + 1 - number)
        realised = np.array(called) / count
        errors = [
            np.std(values, ddof=1) / math.sqrt(len(called)) for values in (realised, of_images)
        ]
        print(
            f"| {rate:.0%} | {number / (half + 1):.4f} | {realised.mean():.4f} ± {errors[0]:.4f} "
            f"| {np.std(realised, ddof=1):.4f} | {law.std() / count:.4f} "
            f"| {_p_value(called, law, count):.2f} "
            f"| {np.mean(of_images):.4f} ± {errors[1]:.4f} | {np.std(of_images, ddof=1):.4f} |"
        )


def _p_value(called: list[int], law: stats.rv_discrete, count: int) -> float:
    """Returns the p-value of a chi-squared test; bins are merged until each expects five counts."""
    expected = len(called) * law.pmf(np.arange(count + 1))
    observed = np.bincount(called, minlength=count + 1)
    bins: list[list[float]] = [[0.0, 0.0]]
    for expected_count, observed_count in zip(expected, observed, strict=True):
        if bins[-1][0] >= 5:
            bins.append([0.0, 0.0])
        bins[-1][0] += expected_count
        bins[-1][1] += observed_count
    if bins[-1][0] < 5:
        last = bins.pop()
        bins[-1] = [bins[-1][0] + last[0], bins[-1][1] + last[1]]
    theory, counts = np.array(bins).T
    return float(stats.chisquare(counts, theory * counts.sum() / theory.sum()).pvalue)


if __name__ == "__main__":
    main()
