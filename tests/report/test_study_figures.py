"""Figures of several systems show their data."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from jaxad.report import study_figures
from jaxad.report.figures import BLUE
from jaxad.report.study_figures import SystemScores


@pytest.fixture
def systems(rng):
    labels = np.repeat([0, 1], [60, 30])
    return {
        "good": SystemScores(labels, [rng.normal(3.0 * labels) for _ in range(2)]),
        "bad": SystemScores(labels, [rng.normal(size=90)]),
        "linear": SystemScores(labels, [rng.normal(1.0 * labels)], is_baseline=True),
    }


def test_roc_curves_are_means_over_runs_best_first(systems):
    axes = study_figures.roc_curves(systems, "test_objects", best_first=True).axes[0]
    drawn = [line for line in axes.lines if line.get_label()[0] != "_"]
    assert [line.get_label().split()[0] for line in drawn] == ["good", "linear", "bad"]
    assert drawn[1].get_color() == "black"
    for line in drawn:
        name, shown = line.get_label().split()
        one = systems[name]
        auroc = np.mean([roc_auc_score(one.labels, run) for run in one.runs])
        assert shown == f"{auroc:.3f}"
        area = np.trapezoid(line.get_ydata(), line.get_xdata())
        assert area == pytest.approx(auroc)
    # Where a curve rises vertically, the drawn value is the upper end.
    one = systems["bad"]
    false, true, _ = roc_curve(one.labels, one.runs[0], drop_intermediate=False)
    assert np.interp(0.5, *drawn[2].get_data()) == pytest.approx(true[false == 0.5].max())


def test_roc_curves_are_steps_in_the_order_given(systems):
    order = ("bad", "good")
    axes = study_figures.roc_curves({name: systems[name] for name in order}, "test").axes[0]
    drawn = [line for line in axes.lines if line.get_label()[0] != "_"]
    assert [line.get_label().split()[0] for line in drawn] == ["bad", "good"]
    assert drawn[0].get_color() == BLUE
    for line in drawn:  # without equal scores, each part is vertical or horizontal
        x, y = line.get_data()
        assert all((np.diff(x) == 0) | np.isclose(np.diff(y), 0))


def test_densities_have_an_area_of_one_and_a_panel_a_system(systems):
    constant = SystemScores(systems["bad"].labels, [np.ones(90)])
    figure = study_figures.score_densities({**systems, "constant": constant}, "test_objects")
    titled = {axes.get_title("left"): axes for axes in figure.axes if axes.get_title("left")}
    assert list(titled) == ["good", "bad", "linear", "constant"]
    for name in ("good", "bad"):
        curves = {line.get_label(): line.get_data() for line in titled[name].lines}
        assert set(curves) == {"normal", "anomalous"}
        for x, y in curves.values():
            assert 0.8 < np.trapezoid(y, x) <= 1.0  # the tails run past the percentiles
    peak = {
        label: x[np.argmax(y)]
        for label, (x, y) in ((line.get_label(), line.get_data()) for line in titled["good"].lines)
    }
    assert peak["anomalous"] - peak["normal"] == pytest.approx(3.0, abs=1.0)
    assert titled["constant"].texts[0].get_text() == "every slice has the same score"
