"""HCP: the healthy brains that the pchVAE paper learns from."""

import dataclasses
import logging
from pathlib import Path

from jaxad.data.files.items import Item
from jaxad.data.files.splitting import pick
from jaxad.data.files.tree import find_folders
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.published.manual import Choices, Layout, ManualBuilder
from jaxad.errors import UserError

logger = logging.getLogger(__name__)

#: The paper's subjects, of the more that there are now.
_NUM_SUBJECTS = 1000

#: Modality -> file below a subject's folder.
_FILES = {
    "t1": "T1w/T1w_acpc_dc_restore_brain.nii.gz",
    "t2": "T1w/T2w_acpc_dc_restore_brain.nii.gz",
}


class Hcp(ManualBuilder):
    """Healthy brains of the Human Connectome Project, axial slices.

    Splits: `train`, `val` and `test_normal`, 800 subjects (a tenth of them `val`) and 200 in the
    paper. `config.data.name=hcp` renders the paper's natural objects into `test_normal`, which
    becomes `test_objects`.

    The paper is silent on how scans are cut. As in its first author's earlier code: zoom 0.75 of
    the 0.7 mm grid, z-score over non-zero voxels, 20 slices dropped at each end.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register at https://db.humanconnectome.org, accept the WU-Minn HCP open access data use terms,
    and download "Structural Preprocessed" of the S1200 release (package `3T_Structural_preproc`).
    Give the folder that holds the subjects:

        <root>/100307/T1w/T1w_acpc_dc_restore_brain.nii.gz
        <root>/100307/T1w/T2w_acpc_dc_restore_brain.nii.gz
        <root>/100408/...
    """
    KIND = "nifti"
    UNIT = "patients"
    PUBLISHED = {("train", 0): 800, ("test_normal", 0): 200}
    DEFAULTS = Cutting(slices=(20, -20), spacing=0.7 / 0.75, field_of_view=200.0)
    DESCRIPTION = "Axial slices of healthy brains of the Human Connectome Project."
    HOMEPAGE = "https://www.humanconnectome.org"
    CITATION = """@article{vanessen2012human,
  title={The Human Connectome Project: a data acquisition perspective},
  author={Van Essen, David C. and Ugurbil, Kamil and others},
  journal={NeuroImage}, volume={62}, number={4}, pages={2222--2231}, year={2012}
}"""

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Where files lie as those of HCP, one modality of each subject."""
        file = _FILES[modality or "t2"]
        named = [item for item in items if item.paths[0].as_posix().endswith(file)]
        return [dataclasses.replace(item, group=item.paths[0].parts[-3]) for item in named] or items

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        modalities = cls.modalities(choices, _FILES, "t2")
        folders = [folder for folder in find_folders(root) if folder.name.isdigit()]
        if not folders:
            raise UserError(
                f"hcp: '{root}' holds no folder of a subject, such as 100307/T1w/; name the folder "
                "that does. How to get the data: docs/data.md."
            )
        items = {}
        for folder in folders:
            paths = tuple(folder / _FILES[modality] for modality in modalities)
            if all(path.exists() for path in paths):
                items[folder.name] = Item(id=folder.name, group=folder.name, paths=paths, label=0)
        lacking = len(folders) - len(items)
        if not items:
            raise UserError(
                f"hcp: no subject below '{root}' has {_FILES[modalities[0]]}; download "
                "'Structural Preprocessed'."
            )
        if lacking:
            logger.warning(
                f"warning: hcp: {lacking} of {len(folders)} subjects have no "
                f"{' and '.join(modalities)} and are left out."
            )
        seed, names = choices.splitting.seed, set(items)
        if len(names) > _NUM_SUBJECTS:
            names, _ = pick(names, (_NUM_SUBJECTS / len(names),), seed)
        test, train = pick(names, (0.2,), seed)
        if choices.test_only:
            test, train = names, set()
        return {
            "train": [items[name] for name in sorted(train)],
            "test_normal": [items[name] for name in sorted(test)],
        }
