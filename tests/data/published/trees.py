"""Small trees of the papers' data sets: real layout, names, types and headers, few and tiny files.

Shapes are smaller than the real ones and voxels larger in the plane, so that a brain fills the
same field of view.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

HCP_SUBJECTS = (
    *("100206", "100307", "100408", "100610", "101006"),
    *("101107", "101309", "101410", "101915", "102008"),
)
#: 182 x 224 mm, 60 slices of 0.7 mm: with 7 mm pixels a slice is 26 x 32.
HCP_SHAPE = (26, 32, 60)
HCP_AFFINE = ((-7.0, 0, 0, 90), (0, 7.0, 0, -126), (0, 0, 0.7, -72), (0, 0, 0, 1))
_HCP_FILES = {
    "t1": "T1w/T1w_acpc_dc_restore_brain.nii.gz",
    "t2": "T1w/T2w_acpc_dc_restore_brain.nii.gz",
}

BRATS2017_PATIENTS = (
    "HGG/Brats17_2013_2_1",
    "HGG/Brats17_CBICA_AAB_1",
    "HGG/Brats17_TCIA_105_1",
    "LGG/Brats17_2013_0_1",
    "LGG/Brats17_TCIA_101_1",
)
BRATS2021_PATIENTS = tuple(f"BraTS2021_{number:05d}" for number in (0, 2, 3, 5, 6))
BRATS_MODALITIES = ("flair", "t1", "t1ce", "t2")
#: 240 x 240 mm and 155 slices of 1 mm: with 10 mm pixels a slice is 24 x 24.
BRATS_SHAPE = (24, 24, 155)
BRATS_AFFINE = ((-10.0, 0, 0, 0), (0, -10.0, 0, 239), (0, 0, 1, 0), (0, 0, 0, 1))
#: Slices that hold brain; the others are empty.
BRATS_BRAIN = (10, 146)
#: Slice -> how many pixels of tumour. More than 10 are an anomaly, none is normal; slices 58 and
#: 65 are neither.
BRATS_TUMOUR: Mapping[int, int] = {58: 10, 59: 11, 60: 30, 61: 30, 62: 30, 63: 30, 64: 30, 65: 1}

ISIC_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def save_scan(path: Path, voxels: np.ndarray, affine: Sequence[Sequence[float]]) -> None:
    """A NIfTI file with the header's units and codes of scanner coordinates."""
    image = nib.Nifti1Image(voxels, np.array(affine, np.float64))
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def _brain(rng: np.random.Generator, shape: tuple[int, ...], ends: tuple[int, int]) -> np.ndarray:
    """Noise in an upright cylinder, 0 around it, with a bright and a dark line from end to end."""
    x, y = (np.linspace(-1, 1, length) for length in shape[:2])
    disc = np.add.outer(x**2, y**2) < 0.75
    voxels = np.where(disc[..., None], rng.uniform(200, 1000, shape), 0)
    # More than 3 standard deviations (of about 230) from the mean of 600: they are clipped.
    voxels[shape[0] // 2, shape[1] // 2], voxels[shape[0] // 2, shape[1] // 2 + 1] = 2000, -500
    voxels[..., : ends[0]] = voxels[..., ends[1] :] = 0
    return voxels


def hcp(
    root: Path, subjects: Iterable[str] = HCP_SUBJECTS, modalities: Iterable[str] = ("t1", "t2")
) -> Path:
    """Subjects with skull-stripped scans (float32, left-handed), as `3T_Structural_preproc`."""
    for number, subject in enumerate(subjects):
        rng = np.random.default_rng(number)
        for modality in modalities:
            voxels = _brain(rng, HCP_SHAPE, (5, 55)).astype(np.float32)
            save_scan(root / subject / _HCP_FILES[modality], voxels, HCP_AFFINE)
        notes = root / subject / "release-notes" / "Structural_preproc.txt"
        notes.parent.mkdir(parents=True)
        notes.write_text("S1200\n")
    return root


def in_unit_interval(path: Path) -> np.ndarray:
    """A scan as the papers have it, by its definition: z-score in the brain, +-3 to [0, 1].

    The darkest brain is 1/255, above the background of 0.
    """
    voxels = nib.load(path).get_fdata()
    brain = voxels[voxels != 0]
    score = np.clip((voxels - brain.mean()) / brain.std(), -3, 3)
    return np.where(voxels != 0, np.maximum(score / 6 + 0.5, 1 / 255), 0)


def _brats(root: Path, patients: Iterable[str]) -> Path:
    for number, place in enumerate(patients):
        rng = np.random.default_rng(number)
        folder = root / place
        for modality in BRATS_MODALITIES:
            voxels = _brain(rng, BRATS_SHAPE, BRATS_BRAIN).astype(np.int16)
            save_scan(folder / f"{folder.name}_{modality}.nii.gz", voxels, BRATS_AFFINE)
        marked = np.zeros(BRATS_SHAPE, np.uint8)
        for position, count in BRATS_TUMOUR.items():
            # 6 x 5 pixels off the middle, inside the brain; all three labels occur.
            patch = np.zeros(30, np.uint8)
            patch[:count] = np.resize([1, 2, 4], count)
            marked[9:15, 6:11, position] = patch.reshape(6, 5)
        save_scan(folder / f"{folder.name}_seg.nii.gz", marked, BRATS_AFFINE)
    return root


def brats2017(root: Path, patients: Iterable[str] = BRATS2017_PATIENTS) -> Path:
    """Patients in HGG and LGG (int16, left posterior superior), with labels 0, 1, 2 and 4."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "survival_data.csv").write_text("Brats17ID,Age,Survival\n")
    return _brats(root, patients)


def brats2021(root: Path, patients: Iterable[str] = BRATS2021_PATIENTS) -> Path:
    """Patients right in the root, otherwise as in 2017."""
    return _brats(root, patients)


def save_picture(path: Path, shape: tuple[int, ...], number: int, low: int = 0) -> None:
    """Noise as a JPEG or PNG file, [H, W] or [H, W, 3]."""
    pixels = np.random.default_rng(number).integers(low, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


#: Folder -> files. 1038998 and 1083159 are learnt from and tested, in other classes even.
OCT2017: Mapping[str, tuple[str, ...]] = {
    "train/NORMAL": (
        *("NORMAL-1001666-1", "NORMAL-1001666-2", "NORMAL-1005456-1", "NORMAL-1017237-1"),
        *("NORMAL-1021152-1", "NORMAL-1038998-1", "NORMAL-1038998-2", "NORMAL-1083159-1"),
    ),
    "train/CNV": ("CNV-1016042-1", "CNV-1016042-2"),
    "test/NORMAL": ("NORMAL-1038998-3", "NORMAL-1025847-1"),
    "test/CNV": ("CNV-103044-1",),
    "test/DME": ("DME-1081406-1",),
    "test/DRUSEN": ("DRUSEN-1083159-1",),
}

CHESTXRAY: Mapping[str, tuple[str, ...]] = {
    "train/NORMAL": (
        *("IM-0115-0001", "IM-0117-0001", "IM-0119-0001", "IM-0122-0001"),
        *("NORMAL2-IM-0383-0001", "NORMAL2-IM-0385-0001"),
    ),
    "train/PNEUMONIA": ("person1_bacteria_1", "person1_bacteria_2"),
    "val/NORMAL": ("NORMAL2-IM-1427-0001", "NORMAL2-IM-1430-0001"),
    "val/PNEUMONIA": ("person1946_bacteria_4874",),
    "test/NORMAL": ("IM-0001-0001", "NORMAL2-IM-0027-0001-0002"),
    "test/PNEUMONIA": ("person1_virus_6", "person1_virus_7", "person3_virus_15"),
}


def _pictures(base: Path, folders: Mapping[str, Iterable[str]], shape: tuple[int, int]) -> None:
    names = [(place, name) for place, all_names in folders.items() for name in all_names]
    for number, (place, name) in enumerate(names):
        save_picture(base / place / f"{name}.jpeg", shape, number)


def oct2017(root: Path, files: Mapping[str, Iterable[str]] = OCT2017) -> Path:
    """Grey JPEG files of 24 x 32 pixels by class, in the folder that the archive unpacks to."""
    _pictures(root / "OCT2017", files, (24, 32))
    return root / "OCT2017"


def chestxray(root: Path, files: Mapping[str, Iterable[str]] = CHESTXRAY) -> Path:
    """Grey JPEG files; a Finder's file lies between them, as in the published archive."""
    _pictures(root / "chest_xray", files, (24, 32))
    (root / "chest_xray" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return root / "chest_xray"


#: Image -> class and lesion. Nevi are learnt from; two of them are of one lesion.
ISIC_TRAINING: Mapping[str, tuple[str, str]] = {
    "ISIC_0024306": ("NV", "HAM_0000550"),
    "ISIC_0024307": ("NV", "HAM_0003577"),
    "ISIC_0024308": ("NV", "HAM_0001477"),
    "ISIC_0024309": ("NV", "HAM_0001477"),
    "ISIC_0024310": ("MEL", "HAM_0003521"),
    "ISIC_0024312": ("BKL", "HAM_0002346"),
}
ISIC_VALIDATION: Mapping[str, str] = {
    "ISIC_0034321": "NV",
    "ISIC_0034322": "DF",
    "ISIC_0034323": "NV",
    "ISIC_0034324": "VASC",
}


def isic2018(root: Path) -> Path:
    """Colour JPEG files of 24 x 32 pixels and their CSV files, as the challenge gives them."""
    parts = {
        "Training": {image: kind for image, (kind, _) in ISIC_TRAINING.items()},
        "Validation": ISIC_VALIDATION,
    }
    for part, classes in parts.items():
        name = f"ISIC2018_Task3_{part}"
        rows = [
            (image, *(f"{float(kind == one):.1f}" for one in ISIC_CLASSES))
            for image, kind in classes.items()
        ]
        truth = root / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv"
        write_csv(truth, ("image", *ISIC_CLASSES), rows)
        for image in classes:
            save_picture(root / f"{name}_Input" / f"{image}.jpg", (24, 32, 3), int(image[5:]))
        (root / f"{name}_Input" / "ATTRIBUTION.txt").write_text("CC-BY-NC\n")
    lesions = [(image, lesion, "histo") for image, (_, lesion) in ISIC_TRAINING.items()]
    write_csv(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        ("image", "lesion_id", "diagnosis_confirm_type"),
        lesions,
    )
    return root


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def miic(root: Path) -> Path:
    """Grey PNG files of 32 x 32 pixels, and the masks of the anomalous ones (0 and 255)."""
    counts = {"train/good": 5, "test/good": 2, "test/anomalous": 2}
    for number, (place, count) in enumerate(counts.items()):
        for image in range(count):
            save_picture(root / place / f"{image:05d}.png", (32, 32), 10 * number + image)
    for image in range(counts["test/anomalous"]):
        mask = np.zeros((32, 32), np.uint8)
        mask[4:9, 10 + image : 14] = 255
        path = root / "ground_truth" / "anomalous" / f"{image:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return root
