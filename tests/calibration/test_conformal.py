"""Conformal p-values and thresholds: by hand, and their guarantee on simulated patients."""

import re

import numpy as np
import pytest
from scipy import stats

from jaxad.calibration.conformal import calibrate, format_rate, group_maxima
from jaxad.errors import UserError

#: Patient 0 has scores 1 and 5, patient 1 has 2, patient 2 has 3, 4 and 6.
SCORES = np.array([1.0, 5.0, 2.0, 3.0, 4.0, 6.0])
GROUPS = np.array([0, 0, 1, 2, 2, 2])


def test_by_hand():
    found = calibrate(SCORES, GROUPS)
    assert found.num_patients == 3 and found.smallest_rate == 0.25
    np.testing.assert_array_equal(group_maxima(SCORES, GROUPS), [5, 2, 6])
    # Patients score 2, 5 and 6: one scores at least 5.5, so p = (1 + 1) / 4.
    np.testing.assert_allclose(
        found.patient_p_values(np.array([7.0, 6.0, 5.5, 5.0, 1.0])), [0.25, 0.5, 0.5, 0.75, 1.0]
    )
    # Slices at 4 or above: half of patient 0's, none of 1's, two thirds of 2's.
    np.testing.assert_allclose(
        found.image_p_values(np.array([7.0, 6.0, 4.0, 1.0])),
        [1 / 4, (1 + 1 / 3) / 4, (1 + 1 / 2 + 2 / 3) / 4, 1.0],
    )


@pytest.mark.parametrize("rate", [0.25, 0.3, 0.34, 0.5, 0.75, 0.99])
def test_thresholds_call_exactly_those_whose_p_value_is_small(rate):
    found = calibrate(SCORES, GROUPS)
    candidates = np.linspace(0.5, 6.5, 25)
    np.testing.assert_array_equal(
        candidates > found.patient_threshold(rate), found.patient_p_values(candidates) <= rate
    )
    np.testing.assert_array_equal(
        candidates > found.image_threshold(rate), found.image_p_values(candidates) <= rate
    )


def test_rates_that_too_few_patients_cannot_support_are_rejected():
    found = calibrate(SCORES, GROUPS)
    words = r"rate of 0.05 is not supported by 3 normal patients: the smallest is 0.25;.* least 19 "
    for threshold in (found.patient_threshold, found.image_threshold):
        with pytest.raises(UserError, match=words):
            threshold(0.05)
    assert calibrate(np.arange(19.0), np.arange(19)).patient_threshold(0.05) == 18.0
    with pytest.raises(UserError, match="there are no normal images"):
        calibrate(np.array([]), np.array([], int))
    with pytest.raises(UserError, match="not finite"):
        calibrate(np.array([1.0, np.nan]), np.array([0, 1]))


@pytest.mark.parametrize("num_patients", [2, 6, 8, 20, 63, 999, 12345])
def test_the_smallest_rate_is_accepted_as_it_is_printed(num_patients):
    calibration = calibrate(np.arange(float(num_patients)), np.arange(num_patients))
    with pytest.raises(UserError) as raised:
        calibration.image_threshold(1e-6)
    printed = re.search(r"the smallest is (\d+\.\d+);", str(raised.value))[1]
    assert calibration.image_threshold(float(printed)) == num_patients - 1
    # At most one unit of the third digit above the rate; 1 - 1e-11: the rate is rounded, too.
    assert 1 - 1e-11 <= float(printed) * (num_patients + 1) < 1.01


@pytest.mark.parametrize(
    ("rate", "text"), [(1 / 3, "0.334"), (0.05, "0.05"), (1 / 21, "0.0477"), (0.012345, "0.012345")]
)
def test_rates_are_rounded_up_unless_six_digits_are_exact(rate, text):
    assert format_rate(rate) == text


def simulate(rng, patients):
    """Returns scores and groups of slices; patients have different levels and numbers of slices."""
    sizes = rng.integers(1, 8, patients)
    groups = np.repeat(np.arange(patients), sizes)
    return rng.normal(size=patients)[groups] + 0.5 * rng.normal(size=len(groups)), groups


@pytest.mark.parametrize(("rate", "patients"), [(0.01, 120), (0.05, 60), (0.1, 40)])
def test_coverage_of_patients_and_its_law(rate, patients):
    """The mean realised rate meets the guarantee; its distribution is the Beta law."""
    rng = np.random.default_rng(0)
    new, new_groups = simulate(rng, 20_000)
    new_scores = group_maxima(new, new_groups)
    realised = []
    for _ in range(400):
        found = calibrate(*simulate(rng, patients))
        realised.append(np.mean(new_scores > found.patient_threshold(rate)))
    law = found.realised_rate_law(rate)
    assert law.mean() <= rate + 1e-12
    error = law.std() / np.sqrt(len(realised))
    assert np.mean(realised) == pytest.approx(law.mean(), abs=4 * error)
    assert stats.kstest(realised, law.cdf).pvalue > 1e-3


def test_invalid_scores_and_rates_are_rejected():
    found = calibrate(np.arange(10.0), np.arange(10))
    for judge in (found.image_p_values, found.patient_p_values):
        with pytest.raises(UserError, match="not finite"):
            judge(np.array([1.0, np.nan]))
    for rate in (0.0, 1.0, 5.0):
        with pytest.raises(UserError, match="choose one between 0 and 1"):
            found.image_threshold(rate)


def test_thresholds_call_exactly_where_p_is_at_most_the_rate():
    """Includes weights such as 1/3 and 1/7, whose sums are off by some bits, and rates near 1."""
    rng = np.random.default_rng(3)
    for patients in range(1, 40):
        sizes = rng.integers(1, 8, size=patients)
        groups = np.repeat(np.arange(patients), sizes)
        scores = np.round(rng.normal(size=len(groups)), 1)
        found = calibrate(scores, groups)
        maxima = group_maxima(scores, groups)
        for called in {1, 2, 5, patients} & set(range(1, patients + 1)):
            rate = called / (patients + 1)
            p_values = found.image_p_values(scores)
            np.testing.assert_array_equal(
                p_values <= np.round(rate, 12), scores > found.image_threshold(np.round(rate, 12))
            )
            np.testing.assert_array_equal(
                found.patient_p_values(maxima) <= np.round(rate, 12),
                maxima > found.patient_threshold(np.round(rate, 12)),
            )
        assert found.patient_threshold(1 - 1e-6) == maxima.min()


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_coverage_of_a_random_slice_of_a_new_patient(rate):
    rng = np.random.default_rng(1)
    new, new_groups = simulate(rng, 20_000)
    weights = 1 / np.bincount(new_groups)[new_groups]
    realised = []
    for _ in range(300):
        found = calibrate(*simulate(rng, 60))
        called = new > found.image_threshold(rate)
        realised.append(np.sum(weights * called) / np.sum(weights))
    error = np.std(realised) / np.sqrt(len(realised))
    # The rate is an upper bound, tight up to the weight of one patient.
    assert rate - 1 / 61 - 4 * error <= np.mean(realised) <= rate + 4 * error


def test_slices_treated_as_patients_break_the_guarantee():
    """Without weights, a patient with many slices would count as many patients."""
    rng = np.random.default_rng(2)

    def skewed(patients):
        levels = rng.normal(size=patients)
        sizes = np.where(levels > 0, 1, 20)  # low-scoring patients have many slices
        groups = np.repeat(np.arange(patients), sizes)
        return levels[groups] + 0.1 * rng.normal(size=len(groups)), groups

    new, new_groups = skewed(20_000)
    weights = 1 / np.bincount(new_groups)[new_groups]
    rates = {"by patient": [], "by slice": []}
    for _ in range(100):
        scores, groups = skewed(60)
        by_patient = calibrate(scores, groups)
        by_slice = calibrate(scores, np.arange(len(scores)))
        for name, found in (("by patient", by_patient), ("by slice", by_slice)):
            called = new > found.image_threshold(0.1)
            rates[name].append(np.sum(weights * called) / np.sum(weights))
    assert np.mean(rates["by patient"]) < 0.11
    assert np.mean(rates["by slice"]) > 0.4


@pytest.mark.parametrize("number", [*range(1, 200), 999, 12345])
def test_the_smallest_rate_is_supported(number):
    found = calibrate(np.arange(number, dtype=np.float64), np.arange(number))
    assert found.patient_threshold(found.smallest_rate) == number - 1
    assert found.image_threshold(found.smallest_rate) == number - 1
