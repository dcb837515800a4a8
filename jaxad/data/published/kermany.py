"""OCT2017 and chest X-rays (Kermany et al. 2018): folders of JPEG files by class."""

import dataclasses
import logging
import re
from pathlib import Path

from jaxad.data.files.items import Item
from jaxad.data.files.tree import find_files
from jaxad.data.published.manual import Choices, Layout, ManualBuilder
from jaxad.data.readers.images import SUFFIXES
from jaxad.errors import UserError

logger = logging.getLogger(__name__)


class _Kermany(ManualBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """Base class of both data sets: `train/NORMAL` is trained on, `test/<class>` is tested."""

    CITATION = "Kermany et al., Cell 172(5):1122-1131, 2018"
    HOMEPAGE = "https://data.mendeley.com/datasets/rscbjbr9sj"
    FOLDER = ""  # that the archive unpacks to; Kaggle's archives add a space
    ANOMALIES: tuple[str, ...] = ()  # folders of `test` besides NORMAL
    TRAINING: tuple[str, ...] = ("train",)  # folders whose NORMAL images are trained on
    PATIENT = ""  # regular expression whose first group is the patient in the name of a file

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        nested = [root / name for name in (cls.FOLDER, f"{cls.FOLDER} ")]
        base = next((folder for folder in (root, *nested) if (folder / "train").is_dir()), None)
        needed = ["train/NORMAL", "test/NORMAL", *(f"test/{name}" for name in cls.ANOMALIES)]
        missing = needed if base is None else [n for n in needed if not (base / n).is_dir()]
        if base is None or missing:
            raise UserError(
                f"{cls.name}: '{base or root}' has no {missing[0]}; name the folder with "
                f"{', '.join(needed)}. How to get the data: docs/data.md."
            )
        train = [
            item
            for split in cls.TRAINING
            if (base / split / "NORMAL").is_dir()
            for item in cls._items(base, f"{split}/NORMAL", 0)
        ]
        test = cls._items(base, "test/NORMAL", 0)
        for name in cls.ANOMALIES:
            test += cls._items(base, f"test/{name}", 1)
        return {"train": cls._without_shared(train, test, choices), "test": test}

    @classmethod
    def _items(cls, base: Path, place: str, label: int) -> list[Item]:
        paths = find_files(base / place, SUFFIXES)
        if not paths:
            raise UserError(f"{cls.name}: '{base / place}' holds no images; unpack it again.")
        return [Item(f"{place}/{path.name}", cls.patient(path), (path,), label) for path in paths]

    @classmethod
    def patient(cls, path: Path) -> str:
        """Returns the patient that a file's name contains, or the name itself."""
        match = re.match(cls.PATIENT, path.stem)
        return match[1] if match else path.stem

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Finds the patients in the names of files."""
        del modality
        return [dataclasses.replace(item, group=cls.patient(item.paths[0])) for item in items]

    @classmethod
    def _without_shared(cls, train: list[Item], test: list[Item], choices: Choices) -> list[Item]:
        """Removes the images of tested patients from `train` with `regroup`; warns without it."""
        shared = {item.group for item in train} & {item.group for item in test}
        if not shared or choices.test_only:
            return train
        count = sum(item.group in shared for item in train)
        if choices.regroup:
            return [item for item in train if item.group not in shared]
        logger.warning(
            f"warning: {cls.name}: {count:,} training images belong to {len(shared):,} patients "
            "who are also in the test split: the published split leaks. "
            "--config.data.regroup=True leaves these images out."
        )
        return train


class Oct2017(_Kermany):
    """Retinal OCT: normal, and with CNV, DME or drusen."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download OCT2017.tar.gz of version 2 from https://data.mendeley.com/datasets/rscbjbr9sj/2 (the
    third version has other images) and unpack it. Give the folder OCT2017:

        <root>/train/NORMAL/NORMAL-1001666-1.jpeg ...      (CNV, DME, DRUSEN are not needed)
        <root>/test/NORMAL/*.jpeg, test/CNV, test/DME, test/DRUSEN
    """
    FOLDER = "OCT2017"
    ANOMALIES = ("CNV", "DME", "DRUSEN")
    # NORMAL-1001666-1: class, patient, image.
    PATIENT = r"[A-Za-z]+-(\d+)-\d+"
    PUBLISHED = {("train", 0): 26_315, ("test", 0): 242, ("test", 1): 3 * 242}


class Chestxray(_Kermany):
    """Chest X-rays of children: normal, and with pneumonia."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download ChestXRay2017.zip from https://data.mendeley.com/datasets/rscbjbr9sj/2 (or
    `chest-xray-pneumonia` from Kaggle) and unpack it. Give the folder chest_xray:

        <root>/train/NORMAL/IM-0115-0001.jpeg ...          (train/PNEUMONIA is not needed)
        <root>/val/NORMAL/*.jpeg                           (Kaggle: eight training images)
        <root>/test/NORMAL/*.jpeg, test/PNEUMONIA/person1_virus_6.jpeg ...
    """
    FOLDER = "chest_xray"
    ANOMALIES = ("PNEUMONIA",)
    # Kaggle's archive has eight of the paper's 1,349 training images in `val`.
    TRAINING = ("train", "val")
    # IM-0115-0001, NORMAL2-IM-0027-0001-0002 and person1_virus_6: patient, then image.
    PATIENT = r"((?:NORMAL2-)?IM-\d+|person\d+)"
    PUBLISHED = {("train", 0): 1_349, ("test", 0): 234, ("test", 1): 390}
    WIDESPREAD = {("train", 0): 1_341}  # Kaggle's archive without its `val`
