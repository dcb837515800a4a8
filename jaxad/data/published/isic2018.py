"""ISIC 2018, task 3: dermatoscopic images of skin lesions."""

import csv
from pathlib import Path

from jaxad.data.files.items import Item
from jaxad.data.published.manual import Choices, Layout, ManualBuilder
from jaxad.errors import UserError

_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


class Isic2018(ManualBuilder):
    """Skin lesions; nevi (NV) are normal, the other six classes anomalous.

    The official validation images are the test split, as in AE-FLOW. Patients are not published:
    images of one lesion are a group if `ISIC2018_Task3_Training_LesionGroupings.csv` exists.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    From https://challenge.isic-archive.com/data/#2018, task 3, download training data, training
    ground truth, training lesion groupings, validation data and validation ground truth, and
    unpack them into one folder:

        <root>/ISIC2018_Task3_Training_Input/ISIC_0024306.jpg ...
        <root>/ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
        <root>/ISIC2018_Task3_Training_LesionGroupings.csv
        <root>/ISIC2018_Task3_Validation_Input/ISIC_0034321.jpg ...
        <root>/ISIC2018_Task3_Validation_GroundTruth/ISIC2018_Task3_Validation_GroundTruth.csv
    """
    PUBLISHED = {("train", 0): 6_705, ("test", 0): 123, ("test", 1): 70}
    HOMEPAGE = "https://challenge.isic-archive.com/landing/2018/"
    CITATION = "Codella et al., arXiv:1902.03368, 2019"

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        lesions = {
            row["image"]: row["lesion_id"]
            for row in _rows(root, "ISIC2018_Task3_Training_LesionGroupings.csv", optional=True)
            if "image" in row and "lesion_id" in row
        }
        train = _items(root, "Training", lesions)
        return {
            "train": [item for item in train if not item.label],
            "test": _items(root, "Validation", lesions),
        }


def _rows(root: Path, name: str, optional: bool = False) -> list[dict[str, str]]:
    """Reads a CSV file that is in the root, or in the folder that its archive unpacks to."""
    places = (root / name, root / Path(name).stem / name)
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        if optional:
            return []
        raise UserError(
            f"isic2018: '{root}' has no {name}; unpack the ground truth there. How to get the "
            "data: docs/data.md."
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error}); download it again.") from error


def _items(root: Path, part: str, lesions: dict[str, str]) -> list[Item]:
    name = f"ISIC2018_Task3_{part}_GroundTruth.csv"
    folder = root / f"ISIC2018_Task3_{part}_Input"
    items = []
    for number, row in enumerate(_rows(root, name), start=2):
        try:
            image = row["image"]
            (lesion_class,) = (name for name in _CLASSES if float(row[name]) == 1)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"isic2018: {name} line {number}: does not give an image one of the classes "
                f"{', '.join(_CLASSES)}; download it again."
            ) from error
        path, group = folder / f"{image}.jpg", lesions.get(image, image)
        items.append(Item(image, group, (path,), int(lesion_class != "NV")))
    if not items:
        raise UserError(f"isic2018: {name} has no rows; download it again.")
    return items
