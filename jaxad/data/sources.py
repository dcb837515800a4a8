"""Data sets by name: where the splits of `config.data` come from."""

import difflib
import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxad.data.natural_objects import render_natural_objects
from jaxad.data.preprocess import check_images
from jaxad.errors import UserError
from jaxad.types import Split

#: How to read each split of a data set, by the split's name.
Readers = Mapping[str, Callable[[], Split]]


def _icbm_synth(data: ConfigDict) -> Readers:
    """The embedded semi-synthetic brains; generated on first use, then read from the cache."""
    # TensorFlow is imported only where data is read: it takes seconds.
    from jaxad.data import tfds_splits
    from jaxad.data.builders.icbm_synth import IcbmSynth, make_config

    builder_config = make_config(
        image_size=data.image_size, seed=data.seed, num_subjects=tuple(data.num_subjects)
    )
    return tfds_splits.open_builder(IcbmSynth, builder_config, data.root)


def _npz(data: ConfigDict) -> Readers:
    """One `<split>.npz` per split in the folder `config.data.root`.

    Arrays: `image` [N, H, W] or [N, H, W, C] (uint8, uint16 or float in [0, 1]); for test splits
    `label` [N]; optional `mask` [N, H, W], `id` [N], `group` [N], `position` [N].
    """
    root = Path(data.root or ".").expanduser()
    paths = {path.stem: path for path in sorted(root.glob("*.npz"))}
    strays = [name for name in paths if name not in ("train", "val") and name[:5] != "test_"]
    if strays:
        raise UserError(
            f"config.data.root '{root}': {strays[0]}.npz is no split; name it "
            f"test_{strays[0]}.npz or move it away."
        )
    missing = [name for name in ("train", "val") if name not in paths]
    if missing:
        raise UserError(
            f"config.data.root '{root}': no {' and no '.join(f'{m}.npz' for m in missing)} there; "
            "an npz data set is train.npz, val.npz and any number of test_<name>.npz."
        )
    return {
        name: functools.partial(_read_npz, path, () if name in ("train", "val") else ("label",))
        for name, path in paths.items()
    }


def read_normals(path: Path, image_shape: tuple[int, int, int]) -> Split:
    """Normal images of another site: a file as `_npz` describes, without labels or all 0.

    It must say which patient each image is of: slices of one taken for patients of their own would
    make any guarantee untrue.

    Raises:
        UserError: it cannot be read, has no `group`, an image is unusable, or one is labelled
            anomalous.
    """
    split = _read_npz(path, needed=("group",))
    _check_split(split, f"'{path}'", image_shape, normal=True)
    return split


#: What arrays of an .npz file hold that some files must have.
_NEEDED = {
    "label": "0 normal, 1 anomalous",
    "group": "the patient of each image; its `id` where no two are of one patient",
}


def _read_npz(path: Path, needed: Sequence[str]) -> Split:
    try:
        # Opened here: np.load leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    # TypeError: a lone array under the name of an archive.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: is no .npz file, or has an array of Python objects; write it with "
                "numpy.savez, text as arrays of str (`.astype(str)`)."
            ) from error
        raise UserError(
            f"{path}: not a readable .npz file ({error}); write it with numpy.savez."
        ) from error
    if "image" not in arrays:
        raise UserError(f"{path}: has no array 'image', only {sorted(arrays)}.")
    images = arrays["image"]
    if images.ndim not in (3, 4):
        raise UserError(
            f"{path}: 'image' has shape {images.shape}; give [N, H, W] or [N, H, W, C]."
        )
    if images.ndim == 3:
        images = images[..., None]
    count = len(images)
    for name, array in arrays.items():
        if array.shape[:1] != (count,):
            rows = len(array) if array.ndim else "no"
            raise UserError(f"{path}: '{name}' has {rows} rows, 'image' has {count}.")
        if name in ("label", "id", "group", "position") and array.ndim != 1:
            raise UserError(f"{path}: '{name}' has shape {array.shape}; give [N], one per image.")
    for name in needed:
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}' ({_NEEDED[name]}).")
    labels = np.asarray(arrays.get("label", np.zeros(count)))
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"{path}: 'label' holds other values than 0 (normal) and 1 (anomalous).")
    ids = [str(name) for name in arrays.get("id", [f"{path.stem}-{i}" for i in range(count)])]
    masks = arrays.get("mask")
    if masks is not None:
        if masks.shape != images.shape[:3]:
            raise UserError(
                f"{path}: 'mask' has shape {masks.shape}, the images want {images.shape[:3]}."
            )
        masks = (masks > 0).astype(np.uint8)
    groups = np.asarray(arrays.get("group", ids))
    if groups.dtype.kind == "f" and not np.isfinite(groups).all():
        raise UserError(f"{path}: 'group' has NaN; name the patient of every image.")
    positions = arrays.get("position")
    if positions is not None and not np.issubdtype(positions.dtype, np.integer):
        raise UserError(f"{path}: 'position' is {positions.dtype}; give slice indices, integers.")
    return Split(
        images=images,
        labels=labels.astype(np.int32),
        ids=tuple(ids),
        groups=tuple(str(group) for group in groups),
        masks=masks,
        positions=None if positions is None else positions.astype(np.int32),
    )


DATA_SETS: Mapping[str, Callable[[ConfigDict], Readers]] = {
    "icbm_synth": _icbm_synth,
    "npz": _npz,
}


def _with_natural_objects(readers: Readers, data: ConfigDict) -> Readers:
    """The readers, that of `config.data.natural_objects` replaced by one of `test_objects`."""
    source, rendered = data.natural_objects, "test_objects"
    if source not in readers:
        raise UserError(
            f"config.data.natural_objects: {data.name} has no split '{source}', only "
            f"{', '.join(readers)}."
        )
    if not source.startswith("test"):
        raise UserError(
            f"config.data.natural_objects: split '{source}' is learnt from; name a test split of "
            "other normal images."
        )
    if rendered in readers and source != rendered:
        raise UserError(
            f"config.data.natural_objects: '{source}' would become '{rendered}', which "
            f"{data.name} has already; rename or remove that one."
        )

    def render() -> Split:
        return render_natural_objects(readers[source](), seed=data.seed)

    others = {name: read for name, read in readers.items() if name != source}
    return {**others, rendered: render}


class DataSet:
    """The splits of one data set; each is read when it is first asked for.

    Attributes:
        split_names: every split; those that are neither `train` nor `val` are test splits.
    """

    def __init__(self, data: ConfigDict):
        """Opens (and where needed generates) the data set that `config.data` names.

        Raises:
            UserError: there is no such data set, it is not where the config says, or objects
                cannot be rendered into the split that `config.data.natural_objects` names.
        """
        if data.name not in DATA_SETS:
            close = difflib.get_close_matches(data.name, DATA_SETS, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else "."
            raise UserError(
                f"config.data.name: unknown data set '{data.name}'{hint} "
                f"Known: {', '.join(sorted(DATA_SETS))}."
            )
        self._name = data.name
        self._readers = DATA_SETS[data.name](data)
        if data.natural_objects:
            self._readers = _with_natural_objects(self._readers, data)
        self._splits: dict[str, Split] = {}
        self._image_shape = (int(data.image_size), int(data.image_size), int(data.channels))
        self.split_names = tuple(self._readers)

    @property
    def test_split_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.split_names if name.startswith("test"))

    def check(self) -> None:
        """Reads and checks every split, and that no patient is in two of them.

        Raises:
            UserError: see `split`; or a patient of one split is in another.
        """
        owner: dict[str, str] = {}
        for name in self.split_names:
            for group in set(self.split(name).groups):
                if owner.setdefault(group, name) != name:
                    raise UserError(
                        f"{self._name}: patient '{group}' is in splits '{owner[group]}' and "
                        f"'{name}'; keep each patient in one split."
                    )

    def split(self, name: str) -> Split:
        """The split of this name, checked.

        Raises:
            UserError: no such split, it is empty, an image is unusable (named by its id), an id
                appears twice, or the images to learn from hold an anomalous one.
        """
        if name not in self._readers:
            raise UserError(f"split '{name}': {self._name} has {', '.join(self.split_names)}.")
        if name not in self._splits:
            split = self._readers[name]()
            _check_split(
                split, f"{self._name} split '{name}'", self._image_shape,
                normal=name in ("train", "val"),
            )  # fmt: skip
            self._splits[name] = split
        return self._splits[name]


def _check_split(
    split: Split, source: str, image_shape: tuple[int, int, int], *, normal: bool
) -> None:
    """Raises a UserError for the first thing that is wrong with a split."""
    if not len(split):
        raise UserError(f"{source}: holds no images.")
    check_images(split.images, split.ids, image_shape, source)
    if len(set(split.ids)) != len(split):
        first = next(i for n, i in enumerate(split.ids) if i in split.ids[:n])
        raise UserError(f"{source}: id '{first}' appears twice; give every image its own.")
    if normal and split.labels.any():
        first = split.ids[int(np.argmax(split.labels))]
        raise UserError(
            f"{source}: image '{first}' is labelled anomalous; only normal images are learnt "
            "from and calibrated on, move it to a test split or leave it out."
        )
