"""Contact sheets of scored images for notebooks, and of data sets."""

import dataclasses

import numpy as np
import pytest

import jaxad
from jaxad.errors import UserError
from jaxad.evaluate.examples import MOST, Examples
from jaxad.report.cases import cases_sheets
from jaxad.report.columns import system_columns
from jaxad.report.contact_sheet import data_set_sheet
from jaxad.types import Scores, Split


@pytest.fixture
def scored(rng):
    images = rng.integers(0, 255, (3, 16, 16, 1), np.uint8)
    high, low = (rng.uniform(-1, 1, (3, 16, 16, 1)).astype(np.float32) for _ in range(2))
    pixel, other = (rng.uniform(0, 1, (3, 16, 16)).astype(np.float32) for _ in range(2))
    scores = Scores(
        np.array([1.0, 2.5, 3.0], np.float32),
        pixel,
        {},
        {"high": high, "low": low, "reconstruction": high + low},
        {"residual": pixel, "high": other},
    )
    return images, scores


def _headings(figure):
    return [text.get_text() for text in figure.texts]


def _cells(figure):
    return [image for axes in figure.axes if axes.get_label() == "cells" for image in axes.images]


def test_a_row_an_image_and_the_columns_that_are_asked_for(scored):
    images, scores = scored
    figure = jaxad.contact_sheet(images, scores, columns=["low", "input"])
    assert _headings(figure) == ["low level", "input", "score 1", "score 2.5", "score 3"]
    cells = _cells(figure)
    assert len(cells) == 6
    shown = cells[3].get_array()  # the first of the second column
    np.testing.assert_allclose(shown, images[0, ..., 0] / 255, atol=1e-6)


def test_a_notebook_shows_it_without_pyplot(scored):
    from IPython.core.formatters import PNGFormatter

    figure = jaxad.contact_sheet(*scored, columns=["input"], titles=["a" * 25, "b c", "d\ne"])
    png, size = PNGFormatter()(figure)
    assert png.startswith(b"\x89PNG")
    # The PNG header has the width in four bytes: two pixels for each CSS pixel.
    assert int.from_bytes(png[16:20]) == 2 * size["width"]
    assert _headings(figure)[1:] == ["a" * 20 + "\n" + "a" * 5, "b c", "d\ne"]


def test_all_columns_by_default_and_masks_outlined_on_maps(scored):
    images, scores = scored
    masks = np.zeros((3, 16, 16), bool)
    masks[1, 3:7, 3:7] = True
    figure = jaxad.contact_sheet(images, scores, masks=masks, titles=["a", "b", "c"])
    expected = ["input", "high level", "low level", "reconstruction", "residual"]
    assert _headings(figure)[:5] == expected
    assert _headings(figure)[-4:] == ["mask", "a", "b", "c"]
    axes = figure.axes[0]
    outlines = [outline.get_datalim(axes.transData) for outline in axes.collections]
    outlined = [
        divmod(index, 3)
        for index, cell in enumerate(_cells(figure))
        for left, right, bottom, top in [cell.get_extent()]
        if any(left < box.x0 < right and top < box.y0 < bottom for box in outlines)
    ]
    # Residual, map of a level and residual map, of the second image.
    assert outlined == [(4, 1), (5, 1), (6, 1)] and len(outlines) == 3


@pytest.mark.parametrize("power", [1, 2])
def test_a_system_is_shown_by_the_map_of_its_pixel_metrics(scored, power):
    images, scores = scored
    images = images / np.float32(255)
    assert list(system_columns(images, scores)) == ["reconstruction", "pixel"]
    residual = (abs(images - scores.reconstructions["reconstruction"]) ** power).mean(axis=-1)
    scores = dataclasses.replace(scores, pixel=3 * residual)
    assert list(system_columns(images, scores)) == ["reconstruction", "residual"]
    scores = dataclasses.replace(scores, reconstructions={})
    assert list(system_columns(images, scores)) == ["pixel"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": ["input", "lo"]}, "unknown column 'lo'; choose from input, high, low"),
        ({"columns": []}, "'columns' is empty; choose from input"),
        ({"titles": ["a"]}, "3 images, 3 scores, 1 titles; pass the same number of each"),
        ({"masks": np.zeros((2, 16, 16))}, "3 images, 3 scores, 3 titles, 2 masks"),
    ],
)
def test_what_cannot_be_drawn_is_named(scored, fields, message):
    with pytest.raises(UserError, match=message):
        jaxad.contact_sheet(*scored, **fields)


def test_no_images_are_an_error(scored):
    images, scores = scored
    none = Scores(scores.image[:0], scores.pixel[:0], {}, {}, {})
    with pytest.raises(UserError, match="there are no images; pass at least one"):
        jaxad.contact_sheet(images[:0], none)


def test_a_data_set_has_a_row_of_each_class_and_outlines_masks():
    images = np.full((3, 8, 8, 1), 255, np.uint8)
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[2, 2:5, 2:5] = 1
    labels = np.array([0, 0, 1], np.int32)
    names = ("a", "b", "c")
    figure = data_set_sheet({"test_x": Split(images, labels, names, names, masks)})
    assert _headings(figure) == ["test_x\nnormal (2)", "test_x\nanomalous (1)"]
    cells = _cells(figure)  # column by column
    shown = [cell.get_array() for cell in cells]
    empty = np.array([np.ma.getmaskarray(image).all() for image in shown]).reshape(8, 2)
    assert (~empty).sum(axis=0).tolist() == [2, 1]
    (outline,) = cells[0].axes.collections
    left, right, bottom, top = cells[1].get_extent()
    box = outline.get_datalim(cells[1].axes.transData)
    assert left < box.x0 < box.x1 < right and top < box.y0 < box.y1 < bottom


def test_many_images_are_shown_page_by_page_on_one_scale(scored, capsys):
    images, scores = scored
    rows = np.arange(50) % 3
    many = Scores(
        np.arange(50, dtype=np.float32), scores.pixel[rows], {}, {}, {"other": scores.pixel[rows]}
    )
    shown = [
        jaxad.contact_sheet(images[rows], many, columns=["other"], page=page) for page in (1, 2, 3)
    ]
    assert [len(_cells(figure)) for figure in shown] == [24, 24, 2]
    assert _headings(shown[2])[1:] == ["score 48", "score 49"]
    assert len({_cells(figure)[0].get_clim() for figure in shown}) == 1
    text = capsys.readouterr().out
    assert "page 1 of 3, images 1 to 24 of 50; page=2 shows others." in text
    with pytest.raises(UserError, match="there is no page 4; choose from 1 to 3"):
        jaxad.contact_sheet(images[rows], many, page=4)


def test_a_report_with_many_examples_has_sheets_of_several_pages(rng):
    images = rng.random((30, 8, 8, 1), np.float32)
    examples = Examples(
        ids=tuple(map(str, range(30))),
        labels=np.zeros(30, np.int32),
        scores=np.arange(30, dtype=np.float32),
        images=images,
        pixel=images[..., 0],
        masks=None,
        kinds={MOST: np.ones(30, bool)},
        reconstructions={},
        maps={},
    )
    pages = [*cases_sheets(examples, MOST)]
    assert [len(_cells(figure)) for figure in pages] == [2 * 24, 2 * 6]  # input and map
    assert _headings(pages[1])[2].startswith("5\n")  # the highest scores are on the first page
