"""Cases show the values of scores.csv and calibration.json and the images of examples.npz."""

import base64
import io
import re

import numpy as np
import pytest
from fake_runs import add_calibration, add_split, make_workdir, read, visible
from PIL import Image

from jaxad.report.cases import cases_view
from jaxad.report.columns import Column
from jaxad.report.pictures import gradient, image_uri, outline
from jaxad.report.run_files import read_run
from jaxad.storage.workdir import Workdir

NORMAL = np.linspace(-1, 2, 40)
# Patients of three slices, the last one of one: patients count alike.
GROUPS = [f"n{i // 3:02}" for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    workdir = make_workdir(tmp_path_factory.mktemp("run"))
    add_split(workdir, "test_a", names=["reconstruction"])
    add_calibration(workdir, NORMAL, GROUPS)
    return workdir.path


def split_of(folder):
    return read_run(Workdir(folder)).splits["test_a"]


def decoded(source):
    assert source.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_contributions_add_up_to_the_score_above_normal_patients(folder):
    files = split_of(folder)
    by_patient = [np.mean(np.float32(NORMAL)[3 * i : 3 * i + 3]) for i in range(14)]
    for case in cases_view(files)["cases"]:
        row = files.table.ids.index(case["id"])
        assert case["score"] == files.table.columns["score"][row]
        added = {part["name"]: part["added"] for part in case["components"]}
        assert added["mse"] is None  # no part of the score
        total = added["nll"] + added["kl"]
        assert total == pytest.approx(case["score"] - np.mean(by_patient), abs=1e-6)
        largest = "kl" if added["kl"] > added["nll"] else "nll"
        assert case["driver"] == (largest if added[largest] > 0 else None)
        assert case["p_value"] == files.stored.calibration.image_p_values(np.array([case["score"]]))


def test_a_slice_whose_components_all_lower_the_score_has_no_largest_contribution(folder):
    cases = cases_view(split_of(folder))["cases"]
    lowered = [case for case in cases if all((p["added"] or -1) <= 0 for p in case["components"])]
    assert lowered and not any(case["driver"] for case in lowered)
    text = visible(read(Workdir(folder)))
    assert text.count("no component raises the score") == len(lowered)


def test_without_normal_images_of_the_same_checkpoint_nothing_is_said_of_drivers(folder):
    workdir = Workdir(folder)
    original = workdir.calibration.read_text()
    try:
        workdir.calibration.write_text(
            original.replace('"checkpoint_step": 100', '"checkpoint_step": 7')
        )
        view = cases_view(split_of(folder))
    finally:
        workdir.calibration.write_text(original)
    for case in view["cases"]:
        assert case["driver"] is None and case["p_value"] is None
        assert all(part["added"] is None for part in case["components"])


def test_cells_are_the_image_s_own_pixels_on_the_columns_scale():
    values = np.linspace(-0.2, 1.2, 12).reshape(1, 3, 4)
    grey = np.asarray(decoded(image_uri(Column("x", values, 0.0, 1.0), 0)))
    np.testing.assert_array_equal(grey, np.rint(255 * np.clip(values[0], 0, 1)))
    colours = np.asarray(
        decoded(image_uri(Column("x", values, 0.0, 1.0, "magma"), 0)).convert("RGB")
    )
    ends = re.findall("#[0-9a-f]{6}", gradient("magma"))
    for place, stop in (((0, 0), ends[0]), ((2, 3), ends[-1])):
        assert "#" + bytes(colours[place].tolist()).hex() == stop
    rgb = np.random.default_rng(0).random((1, 3, 4, 3))
    shown = np.asarray(decoded(image_uri(Column("x", rgb, 0.0, 0.5), 0)))
    np.testing.assert_array_equal(shown, np.rint(255 * np.clip(2 * rgb[0], 0, 1)))


def filled(path, shape):
    """The pixels inside an outline: those with an odd number of vertical edges to their left."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for x, y, command, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", path):
        if command == "v":
            crossings[int(y) : int(y) + int(length), int(x)] += 1
    return np.cumsum(crossings, axis=1)[:, :-1] % 2


def test_the_outline_is_the_border_of_the_mask():
    mask = np.random.default_rng(0).integers(0, 2, (7, 9)).astype(np.uint8)
    path = outline(mask)
    np.testing.assert_array_equal(filled(path, mask.shape), mask)
    # Transposed, the horizontal edges give the same mask.
    turned = re.sub(r"M(\d+) (\d+)([hv])", lambda m: f"M{m[2]} {m[1]}{'hv'[m[3] == 'h']}", path)
    np.testing.assert_array_equal(filled(turned, mask.T.shape), mask.T)
    assert outline(np.zeros((3, 3), np.uint8)) == ""
