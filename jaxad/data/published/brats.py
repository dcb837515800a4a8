"""BraTS 2017 and 2021: brains with tumours and their masks."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from jaxad.data.files.items import Item
from jaxad.data.files.names import stem
from jaxad.data.files.splitting import pick
from jaxad.data.files.tree import find_files
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.published.manual import Choices, Layout, ManualBuilder
from jaxad.data.readers.volumes import NIFTI_SUFFIXES
from jaxad.errors import UserError

_MODALITIES = ("flair", "t1", "t1ce", "t2")


class _Brats(ManualBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """Base class of both years.

    A slice with more than 10 labelled pixels is anomalous, one with none is normal, and others are
    left out. Patients are drawn into splits; `train` and `val` have only normal slices.
    """

    UNIT = "slices"
    HAS_MASKS = True
    CITATION = "Menze et al., IEEE Transactions on Medical Imaging 34(10), 2014"
    DEFAULT_MODALITY: ClassVar[str]

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Selects one modality of each patient if files are named like those of BraTS."""
        ending = f"_{modality or cls.DEFAULT_MODALITY}"
        named = [item for item in items if stem(item.paths[0]).endswith(ending)]
        return [
            dataclasses.replace(item, group=stem(item.paths[0]).removesuffix(ending))
            for item in named
        ] or items

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        modalities = cls.modalities(choices, dict.fromkeys(_MODALITIES, ""), cls.DEFAULT_MODALITY)
        files = {stem(path): path for path in find_files(root, NIFTI_SUFFIXES)}
        patients = sorted({name.rpartition("_")[0] for name in files if name.endswith("_seg")})
        if not patients:
            raise UserError(
                f"{cls.name}: '{root}' has no <patient>/<patient>_seg.nii.gz; name the folder of "
                "the training data, which has masks. How to get the data: docs/data.md."
            )
        items = []
        for patient in patients:
            for modality in modalities:
                if f"{patient}_{modality}" not in files:
                    raise UserError(
                        f"{cls.name}: '{files[f'{patient}_seg'].parent}' has no "
                        f"{patient}_{modality}.nii.gz; add it or remove the patient."
                    )
            paths = tuple(files[f"{patient}_{modality}"] for modality in modalities)
            mask = files[f"{patient}_seg"]
            items.append(Item(id=patient, group=patient, paths=paths, label=None, mask=mask))
        if choices.test_only:
            return {"test": items}
        test, _ = pick(patients, (choices.splitting.test_share,), choices.splitting.seed)
        return {
            "train": [
                dataclasses.replace(item, normal_only=True)
                for item in items
                if item.group not in test
            ],
            "test": [item for item in items if item.group in test],
        }


class Brats2017(_Brats):
    """Brains with gliomas, axial slices of one or several modalities."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register at https://www.med.upenn.edu/cbica/brats2017/ (or take part 1 of the Medical
    Segmentation Decathlon's source) for the BraTS 2017 training data. Give the folder that holds

        <root>/HGG/Brats17_CBICA_AAB_1/Brats17_CBICA_AAB_1_flair.nii.gz
                                       Brats17_CBICA_AAB_1_t1.nii.gz
                                       Brats17_CBICA_AAB_1_t1ce.nii.gz
                                       Brats17_CBICA_AAB_1_t2.nii.gz
                                       Brats17_CBICA_AAB_1_seg.nii.gz
        <root>/LGG/...
    """
    # As in earlier code of the pchVAE paper's first author: 20 slices dropped at each end.
    DEFAULTS = Cutting(slices=(20, -20), field_of_view=200.0)
    DEFAULT_MODALITY = "t2"
    HOMEPAGE = "https://www.med.upenn.edu/cbica/brats2017/"


class Brats2021(_Brats):
    """Brains with gliomas: AE-FLOW's fourth data set, the middle slices of each scan."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register at https://www.synapse.org/brats2021 for the training data of task 1 (also on Kaggle as
    `brats-2021-task1`, BraTS2021_Training_Data.tar). Give the folder that holds

        <root>/BraTS2021_00000/BraTS2021_00000_flair.nii.gz
                               BraTS2021_00000_t1.nii.gz
                               BraTS2021_00000_t1ce.nii.gz
                               BraTS2021_00000_t2.nii.gz
                               BraTS2021_00000_seg.nii.gz
        <root>/BraTS2021_00002/...
    """
    # AE-FLOW: "We slice the central portion of each 3D data set", read as the middle third of 155.
    DEFAULTS = Cutting(slices=(52, 104), field_of_view=200.0)
    PUBLISHED = {("train", 0): 11_739, ("test", 0): 459, ("test", 1): 1_051}
    # The paper does not say which; drawn by the digest of their IDs, so that they are always these.
    TEST_SLICES = {0: 459, 1: 1_051}
    DEFAULT_MODALITY = "flair"
    HOMEPAGE = "https://www.synapse.org/brats2021"
