"""A user's scan is cut like an embedded subject: checked on subjects written as volumes."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from user_files import data_config, write_image

from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.standard_space import brain_box
from jaxad.data.readers.nifti import read_nifti
from jaxad.data.replay import prepare_pixels, read_files, read_normals
from jaxad.data.synthetic import scans, subject, template
from jaxad.data.synthetic.fields import SubjectKey
from jaxad.errors import DataError, UserError

SIZE = 64


def config(size=SIZE):
    data = data_config("", "icbm_synth")
    data.image_size = size
    return data


def head(monkeypatch, key, size):
    """Returns a whole subject before standardisation [X, Y, Z], its affine, and its 20 slices.

    The volume has the slices of the data set, as many below them and as many above.
    """
    fit_field_of_view, axes_of = subject._fit_field_of_view, subject.grid_axes_mm
    heights, rows, columns = axes_of(size)
    step = heights[1] - heights[0]

    def part(slices):
        """Makes the subject with slices that are that many higher than those of the data set."""

        def fit(*arguments):
            with monkeypatch.context() as patch:
                patch.setattr(subject, "grid_axes_mm", axes_of)
                return fit_field_of_view(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(subject, "_fit_field_of_view", fit)
            axes = (heights + slices * step, rows, columns)
            patch.setattr(subject, "grid_axes_mm", lambda _: axes)
            return subject.make_subject(key, size)

    parts = [part(slices) for slices in (-20, 0, 20)]
    noisy = [subject._add_noise(own.signal, own.noise) * own.brain for own in parts]
    # Rows begin at the front of the head.
    voxels = np.transpose(np.concatenate(noisy)[:, ::-1], (2, 1, 0))
    origin = nib.load(template.template_path("t1")).affine[:3, 3]  # voxels are 1 mm wide
    affine = np.diag([200 / size, 200 / size, step, 1.0])
    first = np.array([columns[0], rows[-1], heights[0] - 20 * step])
    affine[:3, 3] = first + template.CENTRE_VOXEL + origin
    return voxels, affine, subject.render(parts[1])


@pytest.fixture
def subject_scan(monkeypatch, tmp_path):
    """The path of a subject as a scan, and its images."""
    voxels, affine, images = head(monkeypatch, SubjectKey(0, 0, 1), SIZE)
    path = tmp_path / "subject.nii.gz"
    nib.save(nib.Nifti1Image(1000 * voxels, affine), path)
    return path, images


def assert_same(split, images, most=1):
    """Compares a split with 20 slices of 8 bits."""
    np.testing.assert_array_equal(split.positions, range(20))
    assert split.images.dtype == np.uint8
    found = split.images[..., 0]
    np.testing.assert_array_equal(found > 0, images > 0)
    assert np.abs(found.astype(int) - images).max() <= most


def test_a_subject_written_as_a_scan_gives_the_slices_of_the_data_set(subject_scan, capsys):
    path, images = subject_scan
    assert_same(read_files(path, config()), images)
    # From voxels and an affine, as a notebook has them.
    image = nib.load(path)
    pixels = prepare_pixels(np.asarray(image.dataobj), config(), image.affine)
    np.testing.assert_array_equal(pixels, read_files(path, config()).images)
    assert capsys.readouterr().err == ""


def test_the_order_of_the_axes_does_not_matter(subject_scan):
    path, images = subject_scan
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("PSL")
    )
    nib.save(image.as_reoriented(turn), path)
    assert_same(read_files(path, config()), images)


def test_a_scan_elsewhere_is_shifted_and_reported(subject_scan, capsys):
    path, images = subject_scan
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += (5, -40, 60)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), affine), path)
    split = read_files(path, config())
    line = capsys.readouterr().err
    assert f"note: {path}: its brain lies " in line and "from that of the ICBM152 template" in line
    assert 45 < float(line.split("its brain lies ")[1].split(" mm")[0]) < 75
    # This subject's brain lies a few mm away from the template's, where the shift puts it.
    found = split.images[..., 0]
    overlap = ((found > 0) & (images > 0)).sum() / ((found > 0) | (images > 0)).sum()
    assert overlap > 0.9


def test_a_template_of_1_mm_fills_its_own_slices():
    # What `load_template` smooths and `make_subject` samples, without a deformation.
    path = template.template_path("t1")
    sampled = template.load_template(SIZE)
    heights, rows, columns = subject.grid_axes_mm(SIZE)
    points = np.stack(np.meshgrid(heights, rows, columns, indexing="ij")[::-1])
    centre = np.subtract(template.CENTRE_VOXEL, sampled.origin)
    points = (points + centre.reshape(3, 1, 1, 1)).astype(np.float32)
    cover, t1 = (
        ndimage.map_coordinates(volume, points, order=1) for volume in sampled.tissues.values.T[:2]
    )
    inside = cover > 0.5
    z = np.clip((t1 - t1[inside].mean()) / t1[inside].std(), -3, 3)
    images = np.where(inside, np.maximum(np.rint((z + 3) * 255 / 6), 1), 0).astype(int)
    assert_same(read_files(path, config()), images)


def test_the_stored_place_of_the_template_is_that_of_its_file():
    volume = read_nifti(template.template_path("t1"))
    np.testing.assert_array_equal(volume.affine[:3, 3], scans._ORIGIN_MM)
    low, high = brain_box(volume)
    np.testing.assert_array_equal((low, high), (scans._BRAIN_LOW_MM, scans._BRAIN_HIGH_MM))


def test_values_come_back_to_the_voxels_that_they_came_from(subject_scan):
    path, _ = subject_scan
    space = scans.scan_reading(Preparation(SIZE, 1)).space
    volume = read_nifti(path)
    values = np.random.default_rng(0).uniform(size=space.grid.shape).astype(np.float32)
    found = space.place_back(values, volume.grid)
    np.testing.assert_allclose(found[:, :, 20:40], values, atol=1e-4)
    assert found.shape == volume.voxels.shape
    assert np.abs(found[:, :, :19]).max() == np.abs(found[:, :, 41:]).max() == 0


def _blob(shape=(100, 120, 100), radii=(0.33, 0.35, 0.36), background=0.0):
    centred = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    distance = ((centred / (np.array(shape) * radii).reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
    texture = np.random.default_rng(0).uniform(50, 100, shape)
    return np.where(distance < 1, texture, background).astype(np.float32)


@pytest.mark.parametrize(
    ("voxels", "spacing", "message"),
    [
        (_blob(background=3.0), 2.0, "has no background of zeros; give a skull-stripped"),
        (_blob() - 1000, 2.0, "has no background of zeros"),
        (_blob(), 0.8, r"measures \d+ x \d+ x \d+ mm \(.* litres\), unlike an adult brain"),
        (_blob(), 3.0, "unlike an adult brain"),
        (_blob(), 20.0, r"mm \(1,\d{3} litres\), unlike an adult brain"),
        (_blob()[:, :, 60:], 2.0, "and give the whole brain"),
        (np.zeros((90, 100, 90), np.float32), 2.0, "is constant, every value is 0"),
        (np.eye(90)[:, :, None].repeat(90, axis=2) * (np.arange(90) == 1), 2.0, "unlike an adult"),
        (np.stack([_blob()] * 2, axis=-1), 2.0, "has 4 dimensions .*, but a scan has 3"),
    ],
)
def test_what_is_no_skull_stripped_head_is_refused(tmp_path, voxels, spacing, message):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing, spacing, spacing, 1])), path)
    with pytest.raises(DataError, match=message):
        read_files(path, config())


def test_a_head_of_the_usual_size_is_not_refused(tmp_path):
    # The control of the test above: 132 x 168 x 144 mm, 1.6 litres.
    nib.save(nib.Nifti1Image(_blob(), np.diag([2.0, 2.0, 2.0, 1])), tmp_path / "a.nii.gz")
    assert len(read_files(tmp_path / "a.nii.gz", config()).images) == 20


def test_normal_scans_of_a_site_calibrate(subject_scan, tmp_path):
    path, images = subject_scan
    site = tmp_path / "site"
    site.mkdir()
    path.rename(site / "p1.nii.gz")
    shutil.copy(template.template_path("t1"), site / "p2.nii.gz")
    split = read_normals(site, config())
    assert split.groups == ("p1.nii.gz",) * 20 + ("p2.nii.gz",) * 20
    assert not split.labels.any()
    assert np.abs(split.images[:20, ..., 0].astype(int) - images).max() <= 1


def test_an_image_is_refused(tmp_path):
    path = write_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"is an image of unknown preparation; a run on 'icbm"):
        read_files(path, config())
