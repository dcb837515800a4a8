"""The data that passes between the rooms: batches, variables, losses and scores."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

#: A tree of arrays (parameters, gradients, optimiser state).
Tree = Any

#: Linen variables: collection name -> tree; always holds `params`.
Variables = Mapping[str, Tree]

#: One batch. On the device: `image` float32 [B, H, W, C] in [0, 1], `label` int32 [B]
#: (1 = anomalous), `_valid` bool [B] (False = padding), `_index` int32 [B] (place in the
#: global batch, or in the split when it is evaluated); masks stay on the host, in a `Split`. For
#: a `PretrainedModel` also `features` [B, ...] where they were computed before.
Batch = Mapping[str, Array]

#: Per-example keys: the noise of an example depends on its place in the global batch alone.
ExampleKeys = Key[Array, " batch"]

Images = Float[Array, "batch height width channels"]
PerExample = Float[Array, " batch"]

#: The patient of each row, as consecutive numbers; see `group_numbers`.
Groups = Int[np.ndarray, " n"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossAux:
    """What a model reports beside its losses.

    Attributes:
        terms: unweighted loss terms, and other figures to watch, by name, each [B]; logged and
            checked for non-finite values. `<network>/<name>` where it is of one network alone.
        mutable: updated non-parameter collections (batch-norm statistics, codebooks), `{}` if none.
    """

    terms: Mapping[str, PerExample]
    mutable: Mapping[str, Tree]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """Anomaly scores of B images; higher is more anomalous for every system.

    Attributes:
        image: the anomaly score of each image, float32 [B].
        pixel: the anomaly map, float32 [B, H, W].
        components: the parts of the image score and other per-image evidence, each float32 [B].
        reconstructions: images in the input's space by name, each float32 [B, H, W, C]; every
            system that reconstructs names its best reconstruction `reconstruction`.
        maps: further anomaly maps by name, each float32 [B, H, W], where a system has several;
            `pixel` is one of them.
    """

    image: Float[Array | np.ndarray, " batch"]
    pixel: Float[Array | np.ndarray, "batch height width"]
    components: Mapping[str, Float[Array | np.ndarray, " batch"]]
    reconstructions: Mapping[str, Float[Array | np.ndarray, "batch height width channels"]]
    maps: Mapping[str, Float[Array | np.ndarray, "batch height width"]] = dataclasses.field(
        default_factory=dict
    )


@runtime_checkable
class Model(Protocol):
    """What every system offers: it scores images. It is a `TrainedModel` or a `FittedModel`.

    A model knows no config, no mesh and no data set. The field `axis_name` is all that it knows of
    parallelism: the name of the axis that batch statistics are summed over, None on one device.

    Attributes:
        image_shape: (H, W, C) of the images that it takes.
        num_latents: variables (or codes) that an image becomes in between.
        score_weights: component -> weight: `Scores.image` is the weighted sum of these components,
            which tells what drove a score.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def num_latents(self) -> int: ...

    @property
    def score_weights(self) -> Mapping[str, float]: ...

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables, of the shapes and dtypes that trained or fitted ones have."""
        ...

    def score(self, variables: Variables, images: Images) -> Scores:
        """Deterministic scores; the score of an image depends on no other image."""
        ...


@runtime_checkable
class TrainedModel(Model, Protocol):
    """A system that is trained by gradients.

    Attributes:
        networks: loss name -> regular expression over parameter paths (`trunk/up_0/kernel`): the
            parameters, and the mutable state, that this loss trains. The validation loss of the
            first one tells the best checkpoint. A system with one loss has `{"model": ".*"}`.
    """

    @property
    def networks(self) -> Mapping[str, str]: ...

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[Mapping[str, PerExample], LossAux]:
        """Per-example losses by network, and what comes with them.

        With `train`, batch norm uses the batch's statistics and codebooks move.
        """
        ...


@runtime_checkable
class FittedModel(Model, Protocol):
    """A system that is fitted to the training images in one pass, without gradients."""

    def fit(self, variables: Variables, batches: Iterable[Batch], key: Key[Array, ""]) -> Variables:
        """The variables after one pass over the training images.

        Args:
            variables: as `init_variables` (and `PretrainedModel.pretrained_variables`) gave them.
            batches: every training image once, in a fixed order, as NumPy arrays; rows that are not
                `_valid` are padding. For a `PretrainedModel` they hold `features`.
            key: for what is drawn at random.

        Returns:
            Variables of the same shapes and dtypes.
        """
        ...


@runtime_checkable
class PretrainedModel(Model, Protocol):
    """A system that sees an image through a frozen, pretrained encoder.

    Attributes:
        frozen_collections: of the variables, those that are the encoder's.
        encoder_description: what features depend on beside these and the image.
    """

    @property
    def frozen_collections(self) -> tuple[str, ...]: ...

    @property
    def encoder_description(self) -> str: ...

    def pretrained_variables(self, key: Key[Array, ""]) -> Variables:
        """The frozen collections, read from where the system's fields say.

        `init_variables` leaves them NaN, so that nobody trains on an encoder that was not read.
        The key is for an encoder that is to be random. Raises a UserError where the weights
        cannot be read.
        """
        ...

    def features(self, variables: Variables, images: Images) -> Float[Array, "batch ..."]:
        """What the rest of the system sees of each image; float32, no other image matters."""
        ...


@dataclasses.dataclass(frozen=True)
class FilesRead:
    """The files that a split was read from.

    Attributes:
        count: of files, the skipped ones among them.
        skipped: why each of those was left out that could not be used.
        slices_left_out: slices in range that hold too little, or whose label is uncertain.
        sizes: how many files are of each size, such as `512x512`.
        lowest: value in any file, before anything is done to it; None where it was not measured.
        highest: likewise.
    """

    count: int
    skipped: tuple[str, ...]
    slices_left_out: int
    sizes: Mapping[str, int]
    lowest: float | None
    highest: float | None


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set, held on the host.

    Attributes:
        images: [N, H, W, C], uint8, uint16 or float32 in [0, 1] (see
            `jaxad.data.prepare.preprocess`).
        labels: int32 [N], 1 = anomalous.
        ids: a unique name per image.
        groups: the patient of each image.
        masks: uint8 [N, H, W], 1 = anomalous pixel; None where the data set has none.
        positions: int32 [N], slice index; None where the data set has none.
        files: where it comes from; None for data that come from no files of the user's.
        unnamed: those of `groups` that name no patient but an image or a file, for lack of one.
    """

    images: np.ndarray
    labels: Int[np.ndarray, " n"]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    masks: UInt8[np.ndarray, "n height width"] | None = None
    positions: Int[np.ndarray, " n"] | None = None
    files: FilesRead | None = None
    unnamed: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)


def group_numbers(groups: Sequence[str]) -> Groups:
    """Consecutive numbers for the names of groups (patients); equal names get equal numbers."""
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
