"""MIIC: microscopic images of integrated circuits."""

from pathlib import Path

from jaxad.data.files.folders import read_folder
from jaxad.data.published.manual import Choices, Layout, ManualBuilder
from jaxad.errors import UserError


class Miic(ManualBuilder):
    """Metal layers of integrated circuits under a scanning electron microscope.

    The layout of the archive is not published; the layout of `folder` is expected.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Ask for the data at https://github.com/wenbihan/MIIC-IAD and lay them out so:

        <root>/train/good/*.png                            23,888 normal images
        <root>/test/good/*.png                             1,272 normal images
        <root>/test/anomalous/*.png                        116 anomalous images
        <root>/ground_truth/anomalous/*.png                masks by the same names
    """
    PUBLISHED = {("train", 0): 23_888, ("test", 0): 1_272, ("test", 1): 116}
    HAS_MASKS = True
    HOMEPAGE = "https://github.com/wenbihan/MIIC-IAD"
    CITATION = "Huang et al., IEEE International Conference on Image Processing, 2021"

    @classmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        splits = read_folder(root, "image", choices.splitting)
        test = splits.get("test", [])
        without_mask = [item for item in test if item.label and item.mask is None]
        if without_mask:
            raise UserError(
                f"{without_mask[0].paths[0]}: has no mask; the data set has one for every "
                "anomalous image; put them into ground_truth/anomalous/ under the same names."
            )
        return {"train": [*splits["train"], *splits["val"]], "test": test}
