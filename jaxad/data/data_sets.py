"""One record for each data set that `config.data.name` can name."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Literal

from jaxad.data.files.formats import Kind
from jaxad.errors import UserError, suggest
from jaxad.extension import is_external, load_object
from jaxad.types import Split

if TYPE_CHECKING:  # it imports TensorFlow, which takes seconds
    from jaxad.data.published.manual import ManualBuilder

#: Name of each split -> function that reads it.
Readers = Mapping[str, Callable[[], Split]]

#: Prefix of the names of data sets of TensorFlow Datasets.
TFDS = "tfds:"

#: Names of data sets outside jaxad in messages.
_TFDS_NAME, _EXTERNAL_NAME = f"{TFDS}<name>", "<package.module>:<function>"


@dataclasses.dataclass(frozen=True)
class DataSetInfo:
    """Facts about a data set that are known before it is opened."""

    name: str  # value of `config.data.name`
    title: str  # short description
    #: how the data set is opened: `generated` by jaxad, `npz` archives, `files` of the user, the
    #: user's copy of a `published` data set, one of TensorFlow Datasets (`tfds`), or a function of
    #: another package (`external`)
    kind: Literal["generated", "npz", "files", "published", "tfds", "external"]
    #: format of the image files; None if the images are not in files
    file_format: Kind | None = None
    builder: str = ""  # `module:Class` of the TFDS builder; "" if there is none
    shares_patients: bool = False  # whether the published splits have patients in common
    #: test split that natural objects are rendered into unless `config.data.natural_objects` names
    #: another; "" for none
    rendered_split: str = ""
    #: `module:function` that returns, for a `Preparation`, how a user's scan is read as images like
    #: those of a `generated` data set; "" if there is none
    scan_reading: str = ""

    @property
    def is_prepared(self) -> bool:
        """Whether images reach jaxad prepared: square, of their final size and scale."""
        return self.kind in ("generated", "npz", "external")

    @property
    def is_users_own(self) -> bool:
        """Whether the user, rather than jaxad or a publication, decides on the splits."""
        return self.kind in ("npz", "files", "external")

    @property
    def format_of_files(self) -> Kind:
        """The format of the files that a run on this data set takes.

        Raises:
            UserError: it takes prepared images only.
        """
        if not self.takes_files:
            names = [info.name for info in DATA_SETS.values() if info.takes_files]
            raise UserError(
                f"a run on '{self.name}' takes prepared images, as an .npz file; runs on "
                f"{', '.join(names)} take files."
            )
        return self.file_format or "nifti"

    @property
    def takes_files(self) -> bool:
        """Whether a run on this data set takes image files or scans, as opposed to `.npz` files."""
        return bool(self.file_format or self.scan_reading)

    @property
    def holds_scans(self) -> bool:
        """Whether the files are volumes, as opposed to images."""
        return self.file_format in ("nifti", "dicom")

    @property
    def kinds(self) -> frozenset[str]:
        """Name, kind, and `images` or `volumes` for files: words that config fields apply to."""
        contents = "volumes" if self.holds_scans else "images"
        return frozenset({self.name, self.kind} | ({contents} if self.file_format else set()))

    @property
    def short_name(self) -> str:
        """The name without a prefix or a package, for the names of splits."""
        if self.kind == "external":
            return self.name.partition(":")[0].rpartition(".")[2]
        return self.name.removeprefix(TFDS)

    def load_builder(self) -> "type[ManualBuilder]":
        """Imports the TFDS builder of a published data set."""
        return load_object(self.builder, "config.data.name")


#: The data sets with a fixed name; `data_set_info` also knows the others.
DATA_SETS: Mapping[str, DataSetInfo] = {
    info.name: info
    for info in (
        DataSetInfo(
            "icbm_synth", "Semi-synthetic brain MRI (ICBM152 template).", "generated",
            scan_reading="jaxad.data.synthetic.scans:scan_reading",
        ),
        DataSetInfo("npz", "NumPy archives of prepared images.", "npz"),
        DataSetInfo("folder", "Image files.", "files", "image"),
        DataSetInfo("nifti", "NIfTI scans.", "files", "nifti"),
        DataSetInfo("dicom", "DICOM series.", "files", "dicom"),
        DataSetInfo(
            "hcp", "Axial slices of healthy brains of the Human Connectome Project.", "published",
            "nifti", "jaxad.data.published.hcp:Hcp",
            rendered_split="test_normal",
        ),
        DataSetInfo(
            "brats2017", "Axial slices of brains with gliomas (BraTS 2017).", "published",
            "nifti", "jaxad.data.published.brats:Brats2017",
        ),
        DataSetInfo(
            "brats2021", "Middle axial slices of brains with gliomas (BraTS 2021).", "published",
            "nifti", "jaxad.data.published.brats:Brats2021",
        ),
        DataSetInfo(
            "oct2017", "Retinal optical coherence tomography (Kermany et al. 2018).", "published",
            "image", "jaxad.data.published.kermany:Oct2017",
            shares_patients=True,
        ),
        DataSetInfo(
            "chestxray", "Chest X-rays of children (Kermany et al. 2018).", "published",
            "image", "jaxad.data.published.kermany:Chestxray",
            shares_patients=True,
        ),
        DataSetInfo(
            "isic2018", "Dermatoscopic images of skin lesions (ISIC 2018, task 3).", "published",
            "image", "jaxad.data.published.isic2018:Isic2018",
        ),
        DataSetInfo(
            "miic", "Scanning electron microscopy of integrated circuits (MIIC).", "published",
            "image",
            "jaxad.data.published.miic:Miic",
        ),
    )
}  # fmt: skip


def users_of(kinds: Collection[str]) -> list[str]:
    """Returns the data sets of some kinds (see `DataSetInfo.kinds`), as messages name them."""
    infos = (*DATA_SETS.values(), DataSetInfo(_TFDS_NAME, "", "tfds"),
             DataSetInfo(_EXTERNAL_NAME, "", "external"))  # fmt: skip
    return [info.name for info in infos if info.kinds & set(kinds)]


def data_set_info(name: str, field: str = "config.data.name") -> DataSetInfo:
    """Returns the record of a data set, without importing the module of an external one.

    Raises:
        UserError: no data set has this name; the message begins with `field`.
    """
    if name.startswith(TFDS):
        return DataSetInfo(name, name, "tfds")
    if is_external(name):
        return DataSetInfo(name, name, "external")
    if name not in DATA_SETS:
        close = suggest(name, DATA_SETS)
        hint = f";{close}" if close else "."
        raise UserError(
            f"{field}: unknown data set '{name}'{hint} "
            f"Known: {', '.join(sorted((*DATA_SETS, _TFDS_NAME, _EXTERNAL_NAME)))}."
        )
    return DATA_SETS[name]
