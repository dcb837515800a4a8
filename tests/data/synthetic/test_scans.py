"""A user's scan is cut like an embedded subject: checked on subjects written as volumes."""

import nibabel as nib
import numpy as np
import pytest

from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.standard_space import brain_box
from jaxad.data.readers.volumes import Volume, read_nifti
from jaxad.data.replay import prepare_pixels, read_files
from jaxad.data.synthetic import scans, subject, template
from jaxad.data.synthetic.fields import SubjectKey
from jaxad.errors import DataError, UserError

from user_files import data_config

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


def test_a_subject_written_as_a_scan_gives_the_slices_of_the_data_set(monkeypatch, tmp_path):
    for number in range(2):
        voxels, affine, images = head(monkeypatch, SubjectKey(0, 0, number), SIZE)
        path = tmp_path / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(1000 * voxels, affine), path)
        split = read_files(path, config())
        assert split.images.shape == (20, SIZE, SIZE, 1) and split.images.dtype == np.uint8
        np.testing.assert_array_equal(split.positions, range(20))
        difference = np.abs(split.images[..., 0].astype(int) - images)
        print(difference.max(), difference.mean(), ((split.images[...,0]>0)!=(images>0)).mean())
