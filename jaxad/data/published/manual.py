"""Published data sets whose files every user has to fetch, as TensorFlow Datasets builders.

A data set is a subclass of `ManualBuilder`: its `layout` finds the files of each split, and its
instructions say how to get them. TFDS keeps the prepared images in a folder whose name changes with
the settings and with the files.
"""

import abc
import collections
import dataclasses
import hashlib
import heapq
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped

from jaxad.data.data_sets import DATA_SETS
from jaxad.data.files.formats import Kind
from jaxad.data.files.items import Item, Reading, files_of
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

#: Sizes are compared with the paper's only if each is at least this share of it: users who work
#: with a part of the data need no warning.
_LEAST_SHARE = 0.9

#: Items by split.
Layout = Mapping[str, list[Item]]


@dataclasses.dataclass(frozen=True)
class Choices:
    """The settings in `config.data` that a published data set depends on."""

    preparation: Preparation = Preparation(64, 1)  # how pixels become an image
    #: how volumes are cut; fields that are 0 or empty take the data set's `DEFAULTS`
    cutting: Cutting = Cutting()
    splitting: Splitting = Splitting()  # how patients are drawn into splits
    on_error: str = "raise"  # `raise`, or `skip` bad files
    modality: str = ""  # names of modalities, separated by commas; "" for the data set's default
    regroup: bool = False  # whether to leave training images of tested patients out
    check_sizes: bool = True  # whether to compare the numbers of images with the published ones
    test_only: bool = False  # whether all patients are tested


@dataclasses.dataclass(kw_only=True)
class ManualConfig(tfds.core.BuilderConfig):
    """One version of a data set; `make_config` names it."""

    choices: Choices = dataclasses.field(default_factory=Choices)
    #: items of each split; None if they are still to be found
    splits: Layout | None = dataclasses.field(default=None, repr=False, compare=False)


def make_config(choices: Choices, files: str = "") -> ManualConfig:
    """Makes a config whose name changes with the settings and `files`, a text on the files."""
    size = choices.preparation.image_size
    # These two settings do not change what is cached: skipped files are kept by name, and a cache
    # that was made with `skip` is refused with `raise`.
    cached = dataclasses.replace(choices, on_error="raise", check_sizes=True)
    settings = json.dumps(dataclasses.asdict(cached), sort_keys=True)
    digest = hashlib.blake2b(f"{settings}{files}".encode(), digest_size=4).hexdigest()
    modality = "-".join(re.findall(r"\w+", choices.modality)) or "default"
    name = f"{modality}_{size}px_{digest}"
    description = f"{size} x {size} pixels; {settings}"
    return ManualConfig(name=name, description=description, choices=choices)


class ManualBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """Base class of data sets whose files the user fetches."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS: ClassVar[list[ManualConfig]] = [make_config(Choices())]

    #: replaces fields of `config.data.volume` that are 0 or empty
    DEFAULTS: ClassVar[Cutting] = Cutting()
    #: (split, label) -> published number of what `UNIT` names
    PUBLISHED: ClassVar[Mapping[tuple[str, int], int]] = {}
    #: numbers of copies in wide use that are taken for the published ones
    WIDESPREAD: ClassVar[Mapping[tuple[str, int], int]] = {}
    #: label -> number of slices of a test split, drawn by the digest of their IDs; {} for all
    TEST_SLICES: ClassVar[Mapping[int, int]] = {}
    UNIT: ClassVar[str] = "images"  # `images`, `patients` or `slices`
    HAS_MASKS: ClassVar[bool] = False  # whether the data set has masks
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""

    @classmethod
    @abc.abstractmethod
    def layout(cls, root: Path, choices: Choices) -> Layout:
        """Finds the files of each split: `train`, part of which becomes `val`, and test splits.

        Raises:
            UserError: the files are not where they should be; the message says where.
        """

    @classmethod
    def of_site(cls, items: list[Item], modality: str) -> list[Item]:
        """Selects and groups files of another site that are named like this data set's files.

        Each item comes with a patient of its own and gets the patient that its name contains. If no
        name fits, all items are returned. `modality` is the run's; "" for the data set's default.
        """
        del modality
        return items

    @classmethod
    def file_format(cls) -> Kind:
        """Returns the format of the files."""
        return DATA_SETS[cls.name].format_of_files

    @classmethod
    def modalities(cls, choices: Choices, known: Iterable[str], default: str) -> tuple[str, ...]:
        """Returns the modalities in `config.data.modality`, one per channel; all must be known."""
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
        """Replaces fields of `reading.cutting` that are left at their defaults by `DEFAULTS`."""
        unset = Cutting()
        changes = {
            field.name: getattr(cls.DEFAULTS, field.name)
            for field in dataclasses.fields(Cutting)
            if getattr(reading.cutting, field.name) == getattr(unset, field.name)
        }
        return dataclasses.replace(reading, cutting=dataclasses.replace(reading.cutting, **changes))

    @classmethod
    def reading(cls, choices: Choices) -> Reading:
        """Returns how the files are read."""
        return cls.reading_of(
            Reading(cls.file_format(), choices.preparation, choices.cutting, choices.on_error, True)
        )

    @classmethod
    def depth(cls, preparation: Preparation) -> Any:
        """Returns the dtype of images: uint16 if intensities are normalised, else uint8."""
        is_plain = cls.file_format() == "image" and preparation.of_images().intensity == "range"
        return np.uint8 if is_plain else np.uint16

    @classmethod
    def splits(cls, root: Path, choices: Choices) -> dict[str, list[Item]]:
        """Finds the items of all splits, `val` among them.

        Raises:
            UserError: see `layout` and `check_sizes`; or a mask is among the images.
        """
        splits = dict(cls.layout(root, choices))
        paths = [path for items in splits.values() for item in items for path in item.paths]
        refuse_masks(paths, cls.file_format(), root, "move masks away")
        if cls.UNIT != "slices":
            cls.check_sizes(_counts(splits, cls.UNIT), choices)
        if choices.test_only:
            return {name: items for name, items in splits.items() if name.startswith("test")}
        return with_val(splits, choices.splitting)

    @classmethod
    def check_sizes(cls, counts: Mapping[tuple[str, int], int], choices: Choices) -> None:
        """Compares sizes by split and label with the published ones if all data seem present.

        Slices only cause a warning, because the rule that selects them is not published.

        Raises:
            UserError: the numbers of images or patients differ.
        """
        have = {key: counts.get(key, 0) for key in cls.PUBLISHED}
        wrong = [
            key
            for key, number in cls.PUBLISHED.items()
            if have[key] not in (number, cls.WIDESPREAD.get(key))
        ]
        is_part = any(have[key] < _LEAST_SHARE * number for key, number in cls.PUBLISHED.items())
        if not wrong or is_part or choices.regroup or choices.test_only or not choices.check_sizes:
            return
        sizes = ", ".join(
            f"{have[split, label]:,} {'anomalous' if label else 'normal'} {cls.UNIT} in {split} "
            f"(paper: {cls.PUBLISHED[split, label]:,})"
            for split, label in wrong
        )
        if cls.UNIT == "slices":
            logger.warning(
                f"warning: {cls.name}: {sizes}; the paper does not describe how it selects slices."
            )
            return
        raise UserError(
            f"{cls.name}: {sizes}; fetch the version that the instructions name, or set "
            "config.data.check_sizes to False."
        )

    def _info(self) -> tfds.core.DatasetInfo:
        preparation = self.builder_config.choices.preparation
        side, channels = preparation.image_size, preparation.channels
        features: dict[str, Any] = {
            "image": tfds.features.Image(
                shape=(side, side, channels), dtype=self.depth(preparation), encoding_format="png"
            ),
            "label": tfds.features.ClassLabel(names=["normal", "anomalous"]),
            "id": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
        if self.HAS_MASKS:
            features["mask"] = tfds.features.Image(shape=(side, side, 1), encoding_format="png")
        if DATA_SETS[self.name].holds_scans:
            features["position"] = np.int32
        return tfds.core.DatasetInfo(
            builder=self,
            description=DATA_SETS[self.name].title,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(files={}),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        config = self.builder_config
        splits = config.splits or self.splits(Path(dl_manager.manual_dir), config.choices)
        return {name: self._generate_examples(name, items) for name, items in splits.items()}

    def _generate_examples(self, split: str, items: list[Item]) -> Iterator[tuple[int, dict]]:
        examples = self._read_examples(split, items)
        if split == "test" and self.TEST_SLICES and not self.builder_config.choices.test_only:
            examples = iter(_drawn(examples, self.TEST_SLICES))
        for number, example in enumerate(examples):
            # The published number of training slices includes those of `val`.
            self._slices["train" if split == "val" else split, example["label"]] += 1
            yield number, example

    def _read_examples(self, split: str, items: list[Item]) -> Iterator[dict[str, Any]]:
        choices, summary = self.builder_config.choices, FilesSummary()
        for rows in read_items(items, self.reading(choices), f"{self.name} {split}"):
            summary.add(rows)
            images = to_depth(rows.images, self.depth(choices.preparation))
            for place, name in enumerate(rows.ids):
                label = int(rows.labels[place])
                example: dict[str, Any] = {
                    "image": _encode_png(images[place]),
                    "label": label,
                    "id": name,
                    "group": rows.item.group,
                }
                if self.HAS_MASKS:
                    empty = np.zeros(images.shape[1:3], np.uint8)
                    mask = empty if rows.masks is None else rows.masks[place]
                    example["mask"] = _encode_png(mask[..., None])
                if rows.positions is not None:
                    example["position"] = int(rows.positions[place])
                yield example
        files = summary.finish(f"{self.name} {split}")
        self.info.metadata["files"][split] = dataclasses.asdict(files)

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Reads the files, unless the cache has them; see `tfds.core.DatasetBuilder`."""
        self._slices: collections.Counter[tuple[str, int]] = collections.Counter()
        with silent_tfds():
            super().download_and_prepare(**kwargs)
        if self.UNIT == "slices" and self._slices:
            self.check_sizes(self._slices, self.builder_config.choices)


def _counts(splits: Layout, unit: str) -> dict[tuple[str, int], int]:
    """Counts the images or patients of each split and label."""
    names = collections.defaultdict(set)
    for split, items in splits.items():
        for item in items:
            names[split, int(item.label != 0)].add(item.group if unit == "patients" else item.id)
    return {key: len(members) for key, members in names.items()}


def _drawn(examples: Iterable[dict[str, Any]], sizes: Mapping[int, int]) -> list[dict[str, Any]]:
    """Returns, of each label, the examples whose IDs have the smallest SHA-256, in their order."""
    kept: dict[int, list[tuple[int, int, dict[str, Any]]]] = {label: [] for label in sizes}
    for number, example in enumerate(examples):
        digest = int(hashlib.sha256(example["id"].encode()).hexdigest(), 16)
        heap = kept[example["label"]]
        heapq.heappush(heap, (-digest, number, example))
        if len(heap) > sizes[example["label"]]:
            heapq.heappop(heap)  # the largest digest
    drawn = sorted(entry[1:] for heap in kept.values() for entry in heap)
    return [example for _, example in drawn]


def _encode_png(image: Shaped[np.ndarray, "h w c"]) -> bytes:
    """Encodes an image of 8 or 16 bits as PNG."""
    return tensorflow().io.encode_png(image, compression=1).numpy()


def config_for(builder: type[ManualBuilder], root: Path, choices: Choices) -> ManualConfig:
    """Makes the config of the files that are below a root now.

    Its name changes with the files, and with the labels and patients that other files assign.
    """
    splits = builder.splits(root, choices)
    items = [(split, item) for split in splits for item in splits[split]]
    rows = [(split, item.id, item.group, item.label, item.normal_only) for split, item in items]
    drawn = builder.TEST_SLICES or ""
    files = fingerprint(root, files_of(splits.values()))
    config = make_config(choices, f"{files}{rows}{drawn}")
    return dataclasses.replace(config, splits=splits)
