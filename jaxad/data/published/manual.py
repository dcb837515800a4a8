"""Data sets whose files everyone has to fetch for themselves, as TensorFlow Datasets builders.

A data set is a class with `layout(root)`, which says which files are in which split and which of
them are wanted, and with the instructions how to get them. What is read is kept as TFDS keeps it,
under a name that tells the settings and changes when a file does.
"""

import abc
import collections
import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped

from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Item, Reading
from jaxad.data.files.mask_search import refuse_masks
from jaxad.data.files.reading import FilesSummary, read_items
from jaxad.data.files.splitting import Splitting, with_val
from jaxad.data.files.tree import fingerprint
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation, to_depth
from jaxad.data.tfds.quiet import silent_tfds
from jaxad.errors import UserError
from jaxad.runtime.cpu_tensorflow import tensorflow

logger = logging.getLogger(__name__)

#: A part of the published data is no reason to complain of its size; most of them is.
_MOST = 0.9


@dataclasses.dataclass(frozen=True)
class Choices:
    """What `config.data` says of a data set of files.

    Attributes:
        preparation: of pixels.
        cutting: of volumes; what is 0 or empty is the data set's own.
        splitting: of patients.
        on_error: `raise` or `skip`.
        modality: the data set's names of modalities, with commas between; "": its own.
        regroup: whether patients that published splits share are kept together.
        check_sizes: whether the published sizes are held against the files.
        test_only: whether every patient is tested, and none is learnt from.
    """

    preparation: Preparation = Preparation(64, 1)
    cutting: Cutting = Cutting()
    splitting: Splitting = Splitting()
    on_error: str = "raise"
    modality: str = ""
    regroup: bool = False
    check_sizes: bool = True
    test_only: bool = False


#: Splits of items, as a layout makes them.
Layout = Mapping[str, list[Item]]


@dataclasses.dataclass(kw_only=True)
class ManualConfig(tfds.core.BuilderConfig):
    """One version of a data set; `make_config` names it.

    Attributes:
        choices: what was chosen.
        splits: its items, where they were looked for; None: they will be.
    """

    choices: Choices = dataclasses.field(default_factory=Choices)
    splits: Layout | None = dataclasses.field(default=None, repr=False, compare=False)


def make_config(choices: Choices, files: str = "") -> ManualConfig:
    """A config whose name changes with anything that changes the data.

    Args:
        choices: what was chosen.
        files: tells the files, and what is said of them.
    """
    size = choices.preparation.image_size
    # Files that are skipped are kept by name: with `raise` what was read with `skip` is refused.
    chosen = dataclasses.replace(choices, on_error="raise", check_sizes=True)
    told = json.dumps(dataclasses.asdict(chosen), sort_keys=True)
    digest = hashlib.blake2b(f"{told}{files}".encode(), digest_size=4).hexdigest()
    modality = "-".join(re.findall(r"\w+", choices.modality)) or "default"
    name = f"{modality}_{size}px_{digest}"
    return ManualConfig(name=name, description=f"{size} x {size} pixels; {told}", choices=choices)


class ManualBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """A data set of files that its user has; see the module.

    Attributes:
        KIND: of its files.
        DEFAULTS: of `config.data.volume`, where the config says 0 or nothing.
        PUBLISHED: (split, label) -> how many images or patients the papers have.
        UNIT: what `PUBLISHED` counts: `images`, `patients` or `slices`.
        SHARES_PATIENTS: whether the published splits have patients in common, or may have.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS: ClassVar[list[ManualConfig]] = [make_config(Choices())]

    KIND: ClassVar[Kind] = "image"
    DEFAULTS: ClassVar[Cutting] = Cutting()
    PUBLISHED: ClassVar[Mapping[tuple[str, int], int]] = {}
    UNIT: ClassVar[str] = "images"
    SHARES_PATIENTS: ClassVar[bool] = False
    DESCRIPTION: ClassVar[str] = ""
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""

    def __init__(self, **kwargs: Any):
        """See `tfds.core.DatasetBuilder`."""
        super().__init__(**kwargs)
        self._slices: collections.Counter[tuple[str, int]] = collections.Counter()

    @property
    def choices(self) -> Choices:
        """What the config says."""
        return self.builder_config.choices

    @classmethod
    @abc.abstractmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        """Which files are in which split: `train` (with what is to be validated on) and `test`.

        Raises:
            UserError: the files do not lie as they should; the message says how they should.
        """

    @classmethod
    def modalities(cls, choices: Choices, known: Iterable[str], default: str) -> tuple[str, ...]:
        """What `config.data.modality` names, one for each channel.

        Raises:
            UserError: one is not known.
        """
        names = tuple(name.strip() for name in (choices.modality or default).split(","))
        known = tuple(known)
        for name in names:
            if name not in known:
                raise UserError(
                    f"config.data.modality: {cls.name} has no '{name}'; it has {', '.join(known)}."
                )
        return names

    @classmethod
    def reading_of(cls, reading: Reading) -> Reading:
        """A reading in which what is left at its default is the data set's own."""
        plain = dataclasses.asdict(Cutting())
        given = dataclasses.asdict(reading.cutting)
        own = dataclasses.asdict(cls.DEFAULTS)
        chosen = {name: own[name] if given[name] == plain[name] else given[name] for name in own}
        return dataclasses.replace(reading, cutting=Cutting(**chosen))

    @classmethod
    def reading(cls, choices: Choices) -> Reading:
        """How its files are read."""
        return cls.reading_of(
            Reading(cls.KIND, choices.preparation, choices.cutting, choices.on_error, measure=True)
        )

    @classmethod
    def splits(cls, root: Path, choices: Choices) -> dict[str, list[Item]]:
        """The items of all splits, `val` among them, checked against the published sizes.

        Raises:
            UserError: see `layout`; a mask is among the images; or all data are there and are not
                those of the paper.
        """
        found = dict(cls.layout(root, choices))
        paths = [path for items in found.values() for item in items for path in item.paths]
        refuse_masks(paths, cls.KIND, root, "move masks away")
        if cls.UNIT != "slices":
            cls.check_sizes(_counts(found, cls.UNIT), choices)
        if choices.test_only:
            return {name: items for name, items in found.items() if name.startswith("test")}
        return with_val(found, choices.splitting)

    @classmethod
    def check_sizes(cls, counts: Mapping[tuple[str, int], int], choices: Choices) -> None:
        """Holds sizes by split and label against the paper's, where all data are there.

        Raises:
            UserError: they differ; for slices, whose rule is not published, it is a warning.
        """
        have = {key: counts.get(key, 0) for key in cls.PUBLISHED}
        wrong = [key for key, number in cls.PUBLISHED.items() if have[key] != number]
        part = any(have[key] < _MOST * number for key, number in cls.PUBLISHED.items())
        moved = choices.regroup or choices.test_only
        if not wrong or part or moved or not choices.check_sizes:
            return
        told = ", ".join(
            f"{have[split, label]:,} {'anomalous' if label else 'normal'} {cls.UNIT} in {split} "
            f"(paper: {cls.PUBLISHED[split, label]:,})"
            for split, label in wrong
        )
        if cls.UNIT == "slices":
            logger.warning(f"warning: {cls.name}: {told}; the paper does not say its rule.")
            return
        raise UserError(
            f"{cls.name}: {told}; fetch the version that the instructions name, or set "
            "config.data.check_sizes to False."
        )

    def _info(self) -> tfds.core.DatasetInfo:
        preparation = self.choices.preparation
        side, channels = preparation.image_size, preparation.channels
        mask = {"mask": tfds.features.Image(shape=(side, side, 1), encoding_format="png")}
        position = {"position": np.int32}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(side, side, channels),
                        dtype=self.depth(self.choices.preparation),
                        encoding_format="png",
                    ),
                    "label": tfds.features.ClassLabel(names=["normal", "anomalous"]),
                    "id": tfds.features.Text(),
                    "group": tfds.features.Text(),
                    **(mask if self._has_masks() else {}),
                    **(position if self.KIND != "image" else {}),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE or None,
            citation=self.CITATION or None,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(files={}),
        )

    @classmethod
    def _has_masks(cls) -> bool:
        return False

    @classmethod
    def depth(cls, preparation: Preparation) -> Any:
        """8 bits where the files have no more, 16 where intensities are normalised."""
        kept = cls.KIND == "image" and preparation.of_images().intensity == "range"
        return np.uint8 if kept else np.uint16

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Of another site's files those that this data set would take, with its patients.

        Args:
            items: every file, each a patient.
            modality: the one that the run learnt from; "" is the data set's own.
        """
        del modality
        return items

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        splits = self.builder_config.splits
        if splits is None:
            splits = self.splits(Path(dl_manager.manual_dir), self.choices)
        return {name: self._generate_examples(name, items) for name, items in splits.items()}

    def _generate_examples(self, split: str, items: list[Item]) -> Iterator[tuple[int, dict]]:
        summary, number = FilesSummary(), 0
        learnt = "train" if split == "val" else split
        for rows in read_items(items, self.reading(self.choices), f"{self.name} {split}"):
            summary.add(rows)
            images = to_depth(rows.images, self.depth(self.choices.preparation))
            for place, name in enumerate(rows.ids):
                label = int(rows.labels[place])
                example: dict[str, Any] = {
                    "image": encode_png(images[place]),
                    "label": label,
                    "id": name,
                    "group": rows.item.group,
                }
                if self._has_masks():
                    empty = np.zeros(images.shape[1:3], np.uint8)
                    mask = empty if rows.masks is None else rows.masks[place]
                    example["mask"] = encode_png(mask[..., None])
                if rows.positions is not None:
                    example["position"] = int(rows.positions[place])
                self._slices[learnt, label] += 1
                yield number, example
                number += 1
        files = summary.finish()
        if not number:
            why = f"; the first: {files.skipped[0]}" if files.skipped else ""
            raise UserError(f"{self.name} {split}: none of {len(items)} files gives an image{why}")
        self.info.metadata["files"][split] = dataclasses.asdict(files)

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Reads the files if that was not done yet; what was skipped is told each time.

        Args:
            **kwargs: as of `tfds.core.DatasetBuilder.download_and_prepare`.
        """
        with silent_tfds():
            super().download_and_prepare(**kwargs)
        if self.UNIT == "slices" and self._slices:
            self.check_sizes(self._slices, self.choices)


def _counts(splits: Layout, unit: str) -> dict[tuple[str, int], int]:
    """How many images or patients a split has with each label."""
    counts: dict[tuple[str, int], set[str]] = {}
    for split, items in splits.items():
        for item in items:
            key = item.group if unit == "patients" else item.id
            counts.setdefault((split, int(item.label != 0)), set()).add(key)
    return {key: len(names) for key, names in counts.items()}


def encode_png(image: Shaped[np.ndarray, "h w c"]) -> bytes:
    """A PNG file of 8 or 16 bits."""
    tf = tensorflow()
    return tf.io.encode_png(image, compression=1).numpy()


def config_for(builder: type[ManualBuilder], root: Path, choices: Choices) -> ManualConfig:
    """The config of the files that lie below a root now.

    Its name changes with the files, and with what another file says of them (a label, a patient).

    Raises:
        UserError: they do not lie as they should.
    """
    splits = builder.splits(root, choices)
    paths = [
        path
        for items in splits.values()
        for item in items
        for path in (*item.paths, *([item.mask] if item.mask else []))
    ]
    said = [
        (split, item.id, item.group, item.label, item.normal_only)
        for split, items in splits.items()
        for item in items
    ]
    config = make_config(choices, f"{fingerprint(root, paths)}{said}")
    return dataclasses.replace(config, splits=splits)
