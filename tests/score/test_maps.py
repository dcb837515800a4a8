"""Anomaly maps as files: places, contents, alignment and privacy."""

import dataclasses
import gzip

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from test_score import (
    SIZE,
    Brightness,
    detector,
    normals,
    rows,
    write_images,
    write_oblique,
)

from jaxad.detector.calibrated import CalibratedDetector
from jaxad.errors import UserError
from jaxad.score import maps
from jaxad.score.files import score_files


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "in")


def test_overlays_show_the_image_and_the_map_beside_it(images, tmp_path):
    score_files(detector(), images, tmp_path / "out")
    with Image.open(tmp_path / "out/maps/patient0/0_map.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (256, 512, 3)
    left, right = pixels[:, :256].astype(int), pixels[:, 256:].astype(int)
    assert (np.ptp(left, axis=-1) == 0).all()  # grey
    # The corner exceeds all normal images: brightest colour. Black stays black.
    corner, rest = right[4:12, 4:12].mean(axis=(0, 1)), right[128:, 128:].mean(axis=(0, 1))
    assert rest.max() < 3 and corner[0] > 200 and corner[2] < corner[0]


def test_maps_of_anomalous_images_only(images, tmp_path):
    stored = normals()
    high = dataclasses.replace(stored, scores=stored.scores + 1.6)
    score_files(CalibratedDetector(Brightness("folder"), high, 0.05), images, tmp_path / "out",
                which_maps="anomalous")  # fmt: skip
    found = rows(tmp_path / "out/scores.csv")
    called = {row["id"].replace(".png", "_map.png") for row in found if row["anomalous"] == "1"}
    folder = tmp_path / "out/maps"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert 0 < len(called) < 6 and written == called
    with pytest.raises(UserError, match="--maps=anomalous: without a calibration no image is"):
        score_files(detector(stored=False), images, tmp_path / "b", which_maps="anomalous")
    with pytest.raises(UserError, match="--maps=zzz: unknown; known: all, anomalous, none"):
        score_files(detector(), images, tmp_path / "b", which_maps="zzz")


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "..", "a/../../b", "ok/x.nii.gz"])
def test_maps_stay_in_their_folder(name, tmp_path):
    path = maps.Places(tmp_path, [name]).of(name, "_map.png").resolve()
    assert path.is_relative_to(tmp_path) and path != tmp_path


def test_no_two_maps_share_a_file(tmp_path):
    names = ["p1.001", "p1.002", "a.png", "a.jpg", "s.nii", "s.nii.gz", "b/c.png", "x" * 300,
             "x" * 299 + "y"]  # fmt: skip
    places = maps.Places(tmp_path, names)
    found = [places.of(name, "_map.png") for name in names]
    assert len(set(found)) == len(names)
    assert found[6] == tmp_path / "b/c_map.png" and found[0].name == "p1.001_map.png"
    for path in found:
        path.parent.mkdir(exist_ok=True)
        path.touch()  # no name is too long


def reoriented(voxels, affine):
    """Returns the same scan with other order and directions of its axes."""
    image = nib.Nifti1Image(voxels, affine)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("S", "L", "A")))
    return np.asarray(turned.dataobj), turned.affine


@pytest.mark.parametrize(
    "fields", [{"volume__spacing": 0.5}, {"volume__spacing": 0.7, "volume__field_of_view": 15.0}]
)
def test_peaks_between_voxels_are_kept(fields, tmp_path):
    """The detector's slices and pixels are finer than the scan's voxels."""
    path = tmp_path / "scan.nii.gz"
    write_oblique(path)
    scorer = detector("nifti", **fields).detector
    peak = {}

    def one_pixel(given):
        for scores in Brightness.score_batches(scorer, given):
            pixel = np.zeros_like(scores.pixel)
            pixel[0, SIZE // 2, SIZE // 2] = 1.0
            peak["highest"] = 1.0
            yield dataclasses.replace(scores, pixel=pixel)

    scorer.score_batches = one_pixel
    score_files(CalibratedDetector(scorer, None, 0.05), path, tmp_path / "out")
    found = nib.load(tmp_path / "out/maps/scan_map.nii.gz").get_fdata()
    assert peak and found.max() > 0.5


def test_texts_of_the_header_are_left_out(tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_oblique(path)
    image = nib.load(path)
    image.header["db_name"] = b"Miller"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Miller^Anna"))
    nib.save(image, path)
    score_files(detector("nifti"), path, tmp_path / "out")
    content = gzip.decompress((tmp_path / "out/maps/scan_map.nii.gz").read_bytes())
    assert b"Miller" in gzip.decompress(path.read_bytes()) and b"Miller" not in content


@pytest.mark.parametrize("turn", [lambda voxels, affine: (voxels, affine), reoriented])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"volume__plane": "sagittal", "preprocess__square": "crop"},
        {"volume__plane": "coronal", "volume__spacing": 2.0, "volume__field_of_view": 60.0},
        {"volume__spacing": 1.5, "preprocess__square": "stretch"},
    ],
)
def test_the_map_of_a_scan_is_aligned_in_world_coordinates(fields, turn, tmp_path):
    path = tmp_path / "a scan.nii.gz"
    centre = write_oblique(path, turn)
    score_files(detector("nifti", **fields), path, tmp_path / "out")
    scan, found = nib.load(path), nib.load(tmp_path / "out/maps/a scan_map.nii.gz")
    assert found.shape == scan.shape and found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(found.affine, scan.affine)
    assert int(found.header["qform_code"]) == 1
    values = found.get_fdata()
    bright = values > 0.9 * values.max()
    places = nib.affines.apply_affine(found.affine, np.argwhere(bright))
    # The lesion is 8.4 x 7 x 10 mm; a pixel of the detector is up to 2 mm wide.
    assert np.abs(places.mean(axis=0) - centre).max() < 1.5
    lesion = np.asarray(scan.dataobj) == 200
    dice = 2 * (bright & lesion).sum() / (bright.sum() + lesion.sum())
    assert dice > 0.6


def test_names_with_dots_have_separate_maps(tmp_path):
    """Text after a dot belongs to the name, unless it is the suffix of a readable format."""
    ids = ["1.2.840.77.3", "1.2.840.77.4", "a/scan.v1.png", "a/scan.v2.png", "b.nii", "b.nii.gz"]
    places = maps.Places(tmp_path, ids)
    written = [places.of(name, "_map.png").relative_to(tmp_path).as_posix() for name in ids]
    assert written[:4] == [
        "1.2.840.77.3_map.png", "1.2.840.77.4_map.png", "a/scan.v1_map.png", "a/scan.v2_map.png",
    ]  # fmt: skip
    assert len(set(written)) == len(ids)


@pytest.mark.parametrize("shift_mm", [0.0, 60.0])
def test_a_run_on_embedded_brains_returns_the_map_on_the_grid_of_the_scan(
    shift_mm, tmp_path, capsys
):
    # An ellipsoid of 132 x 168 x 144 mm with a bright ball, on an oblique grid of 2 x 2 x 3 mm.
    shape, centre = (100, 120, 70), np.array([20.0, -40.0, 25.0])
    turn = nib.eulerangles.euler2mat(0.15, -0.1, 0.1)
    affine = nib.affines.from_matvec(turn @ np.diag([-2.0, 2.0, 3.0]))
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[:3, 3] = np.array([0.0, -17.0, 5.0]) - middle
    points = np.moveaxis(nib.affines.apply_affine(affine, np.indices(shape).T), (0, 2), (2, 0))
    distance = (((points - (0, -17, 5)) / (66, 84, 72)) ** 2).sum(axis=-1)
    voxels = np.random.default_rng(0).uniform(50, 60, shape) * (distance < 1)
    ball = np.linalg.norm(points - centre, axis=-1) < 14
    voxels[ball] = 120
    affine[:3, 3] += shift_mm
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), path)
    score_files(detector("icbm_synth"), path, tmp_path / "out")
    assert ("it is shifted there" in capsys.readouterr().err) == bool(shift_mm)
    found = nib.load(tmp_path / "out/maps/head_map.nii.gz")
    assert found.shape == shape and found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(found.affine, nib.load(path).affine)
    values = found.get_fdata()
    bright = values > 0.9 * values.max()
    places = nib.affines.apply_affine(found.affine, np.argwhere(bright))
    # A pixel of the detector is 6.25 mm wide, and slices are 3.5 mm apart.
    assert np.abs(places.mean(axis=0) - (centre + shift_mm)).max() < 2
    assert 2 * (bright & ball).sum() / (bright.sum() + ball.sum()) > 0.7
