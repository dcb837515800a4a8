"""HCP: the healthy brains that the pchVAE paper trains on."""

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

#: Number of subjects in the paper; the current release has more.
_NUM_SUBJECTS = 1000

#: Modality -> file below a subject's folder.
_FILES = {
    "t1": "T1w/T1w_acpc_dc_restore_brain.nii.gz",
    "t2": "T1w/T2w_acpc_dc_restore_brain.nii.gz",
}


class Hcp(ManualBuilder):
    """Healthy brains of the Human Connectome Project, axial slices.

    Splits: `train` and `val` (in the paper 800 subjects together) and `test_normal` (200).
    `config.data.name=hcp` renders the paper's natural objects into `test_normal`, which becomes
    `test_objects`.

    The paper does not say how scans are cut. This follows earlier code of its first author: zoom
    0.75 of the 0.7 mm grid, z-score over non-zero voxels, 20 slices dropped at each end.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register at https://db.humanconnectome.org, accept the WU-Minn HCP open access data use terms,
    and download "Structural Preprocessed" of the S1200 release (package `3T_Structural_preproc`).
    Give the folder that holds the subjects:

        <root>/100307/T1w/T1w_acpc_dc_restore_brain.nii.gz
        <root>/100307/T1w/T2w_acpc_dc_restore_brain.nii.gz
        <root>/100408/...
    """
    UNIT = "patients"
    PUBLISHED = {("train", 0): 800, ("test_normal", 0): 200}
    DEFAULTS = Cutting(slices=(20, -20), spacing=0.7 / 0.75, field_of_view=200.0)
    HOMEPAGE = "https://www.humanconnectome.org"
    CITATION = "Van Essen et al., NeuroImage 62(4):2222-2231, 2012"

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Selects one modality of each subject if files lie in folders like those of HCP."""
        file = _FILES[modality or "t2"]
        named = [item for item in items if item.paths[0].as_posix().endswith(file)]
        return [dataclasses.replace(item, group=item.paths[0].parts[-3]) for item in named] or items

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        modalities = cls.modalities(choices, _FILES, "t2")
        folders = [folder for folder in find_folders(root) if folder.name.isdigit()]
        if not folders:
            raise UserError(
                f"hcp: '{root}' has no subject's folder, such as 100307/T1w/; name the folder that "
                "has them. How to get the data: docs/data.md."
            )
        items = {}
        for folder in folders:
            paths = tuple(folder / _FILES[modality] for modality in modalities)
            if all(path.exists() for path in paths):
                items[folder.name] = Item(id=folder.name, group=folder.name, paths=paths, label=0)
        if not items:
            raise UserError(
                f"hcp: no subject below '{root}' has {_FILES[modalities[0]]}; download "
                "'Structural Preprocessed'."
            )
        if missing := len(folders) - len(items):
            logger.warning(
                f"warning: hcp: {missing} of {len(folders)} subjects have no "
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
