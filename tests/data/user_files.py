"""Small data sets of a user's files, for the tests of `jaxad.data`."""

import nibabel as nib
import numpy as np
from PIL import Image

from jaxad import config as config_lib
from jaxad.data.files.names import stem

SIZE = 16


def write_image(path, value=100, shape=(20, 20)):
    """Writes a PNG whose pixels are all `value` except one, so that it is not constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(shape, value, np.uint8)
    pixels[0, 0] = value + 1
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path, marked=True, shape=(20, 20)):
    pixels = np.zeros(shape, np.uint8)
    pixels[4:9, 4:9] = 255 * marked
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_scan(path, seed=0, lesion=None):
    """Writes a NIfTI scan of 16 mm a side, 12 mm of it foreground; `lesion`: voxels of its mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros((16, 16, 16), np.float32)
    voxels[2:14, 2:14, 2:14] = np.random.default_rng(seed).uniform(1, 2, (12, 12, 12))
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    if lesion is not None:
        mask = np.zeros(voxels.shape, np.uint8)
        mask[4:8, 4:8, 6] = (np.arange(16) < lesion).reshape(4, 4)
        name = f"{stem(path)}_mask.nii.gz"
        nib.save(nib.Nifti1Image(mask, np.eye(4)), path.with_name(name))
    return path


def write_scans(folder, names, mask):
    """Writes scans and a mask of 16 voxels under the given name."""
    for seed, name in enumerate(names):
        write_scan(folder / f"{name}.nii.gz", seed)
    write_scan(folder / "made.nii.gz", 0, lesion=16)
    (folder / "made.nii.gz").unlink()
    (folder / "made_mask.nii.gz").rename(folder / mask)


def write_grey(path, seed=0):
    """Writes an image of some 200 different values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 20)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_label_map(path, seed=0):
    """Writes a scan of the labels 0 to 3, as in BraTS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 4, (16, 16, 16)).astype(np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def data_config(root, name="folder", **changes):
    data = config_lib.base().data
    data.name, data.root, data.image_size = name, str(root), SIZE
    for field, value in changes.items():
        group, _, last = field.rpartition("__")
        (data[group] if group else data)[last] = value
    return data
