"""Figures show their data, and equal data give equal bytes."""

import io

import matplotlib.image
import numpy as np
import pytest
from sklearn import metrics

from jaxad.report import figures
from jaxad.report.columns import Column
from jaxad.report.contact_sheet import draw_sheet
from jaxad.report.figures import ComparedScore, Curve


@pytest.fixture
def labelled():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 30])
    return labels, generator.normal(labels.astype(float))


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def images(*shape):
    return np.random.default_rng(1).random(shape, np.float32)


def cells(figure):
    return [image for axes in figure.axes if axes.get_label() == "cells" for image in axes.images]


def outlined(image):
    """The columns and rows, first and last, where a contour is drawn in an image of a sheet."""
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape[:2]
    for outline in image.axes.collections:
        box = outline.get_datalim(image.axes.transData)
        if left < box.x0 < right and top < box.y0 < bottom:
            xs, ys = np.array([box.x0, box.x1]) - left, np.array([box.y0, box.y1]) - top
            return [*(xs * columns / (right - left)), *(ys * rows / (bottom - top))]
    return None


def pixels(figure):
    image = matplotlib.image.imread(io.BytesIO(figures.to_png(figure)))
    return np.round(255 * image[..., :3]).astype(int)


def test_roc_curve_has_the_points_of_sklearn(labelled):
    false_positive_rate, true_positive_rate, _ = metrics.roc_curve(*labelled)
    drawn = line(figures.roc_curve(*labelled).axes[0], "model")
    x, y = drawn.get_data()
    assert np.diff(x).min() >= 0 and np.diff(y).min() >= 0
    assert set(zip(x, y, strict=True)) <= set(
        zip(false_positive_rate, true_positive_rate, strict=True)
    )
    assert np.trapezoid(y, x) == pytest.approx(metrics.roc_auc_score(*labelled))


def test_precision_recall_curve_has_the_points_of_sklearn(labelled):
    precision, recall, _ = metrics.precision_recall_curve(*labelled)
    axes = figures.precision_recall_curve(*labelled).axes[0]
    np.testing.assert_array_equal(line(axes, "model").get_xdata(), recall)
    np.testing.assert_array_equal(line(axes, "model").get_ydata(), precision)
    assert any("0.33" in text.get_text() for text in axes.texts)


def test_histogram_counts_every_slice_of_each_class(labelled):
    stairs = figures.score_histogram(*labelled).axes[0].patches
    assert [patch.get_label() for patch in stairs if not patch.get_fill()] == [
        "normal",
        "anomalous",
    ]
    for patch in stairs:
        assert patch.get_data().values.sum() == pytest.approx(1)


@pytest.mark.parametrize("scores", [np.zeros(5), np.full(5, 7.5), np.full(5, -1e6)])
def test_histogram_of_a_constant_score(scores):
    axes = figures.score_histogram(np.zeros(5, int), scores).axes[0]
    assert any("same score" in text.get_text() for text in axes.texts)


def test_training_curve_draws_both_phases():
    steps = np.array([10, 20, 30])
    train, validation = Curve(steps, steps / 7), Curve(steps[1:], steps[1:] / 5)
    axes = figures.training_curve("term/nll_$x$", train, validation).axes[0]
    np.testing.assert_array_equal(line(axes, "train").get_ydata(), train.values)
    np.testing.assert_array_equal(line(axes, "validation").get_xdata(), validation.steps)
    assert axes.get_title("left") == "term/nll_$x$"


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1000.0, 10.0, 1.0], "log"), ([3.0, 2.0, 1.0], "linear"), ([1000.0, 1.0, -1.0], "linear")],
)
def test_values_over_more_than_a_decade_get_a_log_scale(values, scale):
    figure = figures.training_curve("loss", Curve(np.arange(3), np.array(values)))
    assert figure.axes[0].get_yscale() == scale


def test_a_wild_first_value_leaves_the_others_readable_and_is_named():
    values = np.concatenate([[1e6], np.linspace(10, -10, 99)])
    axes = figures.training_curve("loss", Curve(np.arange(100), values)).axes[0]
    assert axes.get_ylim()[1] < 100
    assert any("1e+06" in text.get_text() for text in axes.texts)


@pytest.mark.parametrize("values", [[2.0], [0.0, 0.0], [np.nan], [np.nan, 1.0], [np.inf, 2.0]])
def test_training_curves_of_few_or_odd_values_draw(values):
    curve = Curve(np.arange(len(values)), np.array(values))
    assert figures.to_png(figures.training_curve("loss", curve))


def test_comparison_draws_value_and_interval_of_each_score():
    rows = [
        ComparedScore("The system", True, (0.7, 0.6, 0.8), (0.75, 0.65, 0.85)),
        ComparedScore("PCA", False, (0.65, 0.6, 0.7), None),
        ComparedScore("Undefined", False, None, None),
    ]
    axes = figures.comparison(rows).axes[0]
    drawn = [list(line.get_xdata()) for line in axes.lines[1:]]
    assert drawn == [[0.6, 0.8], [0.7], [0.65, 0.85], [0.75], [0.6, 0.7], [0.65]]
    # The labels are at 0, 1 and 2: one point is level with its label, two are around it.
    heights = [line.get_ydata()[0] for line in axes.lines[1:]]
    assert heights == [-0.16, -0.16, 0.16, 0.16, 1.0, 1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.name for row in rows]


def test_sheet_has_a_cell_for_each_row_and_column_on_the_columns_scale():
    masks = np.zeros((3, 16, 16), np.uint8)
    masks[0, 2:4, 5:9] = 1
    columns = [
        Column("input", images(3, 16, 16)),
        Column("low level", images(3, 16, 16) - 0.5, -0.5, 0.5),
        Column("colours", images(3, 16, 16, 3)),
        Column("residual", images(3, 16, 16), 0.0, 0.2, "magma", masks),
    ]
    figure = draw_sheet(columns, ["a", "b", "c"])
    drawn = cells(figure)
    assert len(drawn) == 3 * 4
    for image, (column, row) in zip(drawn, np.ndindex(4, 3), strict=True):
        np.testing.assert_array_equal(image.get_array(), columns[column].images[row])
        assert image.get_clim() == (columns[column].low, columns[column].high)
        # The contour is half way between the centres of pixels in and out of the mask.
        expected = pytest.approx([5, 9, 2, 4]) if (column, row) == (3, 0) else None
        assert outlined(image) == expected


def test_long_titles_take_further_lines_of_one_size_and_stay_above_their_columns():
    titles = ["input", "PatchCore\nanomaly map", "the map that is used for pixel metrics"]
    figure = draw_sheet([Column(title, images(1, 16, 16)) for title in titles], [""])
    figure.canvas.draw()
    texts = [text for text in figure.texts if text.get_text()]
    assert {text.get_text() for text in texts} >= {"input", "PatchCore", "anomaly map"}
    assert len({text.get_fontsize() for text in texts}) == 1
    boxes = [text.get_window_extent() for text in texts]
    for cell in [image.get_window_extent() for image in cells(figure)]:
        middle = cell.x0 + cell.width / 2
        above = [box for box in boxes if abs((box.x0 + box.x1) / 2 - middle) < 2]
        assert above and all(box.width <= cell.width + 4 for box in above)
        assert all(box.y0 >= cell.y1 for box in above)
        assert all(box.y1 <= figure.bbox.height for box in above)


@pytest.mark.parametrize("shape", [(8, 8), (30, 20), (64, 64)])
def test_each_pixel_of_an_image_covers_a_whole_square_of_the_figure(shape):
    values = np.random.default_rng(2).integers(0, 256, shape)
    figure = draw_sheet([Column("input", values[None] / 255)], ["a"])
    zoom = 256 // max(shape)
    expected = np.kron(values, np.ones((zoom, zoom), int))
    drawn = pixels(figure)
    box = cells(figure)[0].get_window_extent()
    top, left = round(drawn.shape[0] - box.y1), round(box.x0)
    cell = drawn[top : top + expected.shape[0], left : left + expected.shape[1], 0]
    assert np.abs(cell - expected).max() <= 1


def test_images_larger_than_a_cell_fit_in_it():
    figure = draw_sheet([Column("input", images(1, 300, 400))], ["a"])
    box = cells(figure)[0].get_window_extent()
    assert (round(box.width), round(box.height)) == (256, 192)


def test_row_labels_are_no_mathtext():
    figure = draw_sheet([Column("input", images(1, 8, 8))], ["scan_$x^{$ <b>"])
    assert figures.to_png(figure)
    assert "scan_$x^{$ <b>" in [text.get_text() for text in figure.texts]


def test_the_same_data_give_the_same_bytes_and_no_metadata(labelled):
    first, second = (figures.to_png(figures.roc_curve(*labelled)) for _ in range(2))
    assert first == second
    assert b"Software" not in first


def test_drawing_leaves_the_global_style_alone(labelled):
    before = dict(matplotlib.rcParams)
    figures.to_png(figures.score_histogram(*labelled))
    assert dict(matplotlib.rcParams) == before


def test_figures_are_shown_at_half_their_pixels(labelled):
    figure = figures.roc_curve(*labelled)
    height, width, _ = pixels(figure).shape
    assert figures.css_size(figure) == (width / 2, height / 2)
