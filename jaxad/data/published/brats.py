"""BraTS 2017 and 2021: brains with tumours and their masks."""

import dataclasses
from pathlib import Path

from jaxad.data.files.items import Item
from jaxad.data.files.names import stem
from jaxad.data.files.splitting import pick
from jaxad.data.files.tree import find_files
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.published.manual import Choices, Layout, ManualBuilder
from jaxad.data.readers.volumes import NIFTI_SUFFIXES
from jaxad.errors import UserError

_MODALITIES = ("flair", "t1", "t1ce", "t2")

_CITATION = """@article{menze2014multimodal,
  title={The multimodal brain tumor image segmentation benchmark (BRATS)},
  author={Menze, Bjoern H. and Jakab, Andras and Bauer, Stefan and others},
  journal={IEEE Transactions on Medical Imaging}, volume={34}, number={10}, year={2014}
}"""


class _Brats(ManualBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """What both years have in common.

    A slice is anomalous with more than 10 labelled pixels, normal with none, and left out between.
    Patients are drawn into splits; `train` and `val` have normal slices alone, `test` both kinds.
    """

    KIND = "nifti"
    UNIT = "slices"
    CITATION = _CITATION
    FIRST_MODALITY = "t2"

    @classmethod
    def _has_masks(cls) -> bool:
        return True

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Where files are named as those of BraTS, one modality of each patient."""
        ending = f"_{modality or cls.FIRST_MODALITY}"
        named = [item for item in items if stem(item.paths[0]).endswith(ending)]
        return [
            dataclasses.replace(item, group=stem(item.paths[0]).removesuffix(ending))
            for item in named
        ] or items

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        modalities = cls.modalities(choices, dict.fromkeys(_MODALITIES, ""), cls.FIRST_MODALITY)
        files = {stem(path): path for path in find_files(root, NIFTI_SUFFIXES)}
        patients = sorted({name.rpartition("_")[0] for name in files if name.endswith("_seg")})
        if not patients:
            raise UserError(
                f"{cls.name}: '{root}' holds no <patient>/<patient>_seg.nii.gz; name the folder of "
                "the training data, which have masks. How to get the data: docs/data.md."
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
    # As its first author's earlier code has it: z-score in the brain, 20 slices off at each end.
    DEFAULTS = Cutting(slices=(20, -20), field_of_view=200.0)
    DESCRIPTION = "Axial slices of brains with gliomas (BraTS 2017)."
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
    # "We slice the central portion of each 3D data set": the middle third of 155, our reading.
    DEFAULTS = Cutting(slices=(52, 104), field_of_view=200.0)
    PUBLISHED = {("train", 0): 11_739, ("test", 0): 459, ("test", 1): 1_051}
    FIRST_MODALITY = "flair"
    DESCRIPTION = "Middle axial slices of brains with gliomas (BraTS 2021)."
    HOMEPAGE = "https://www.synapse.org/brats2021"
