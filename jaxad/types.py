"""Types that all of jaxad uses: batches, variables, scores, splits, and the protocols of models."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

#: A pytree of arrays (parameters, gradients, optimiser state).
Tree = Any

#: Linen variables: collection name -> tree; always holds `params`.
Variables = Mapping[str, Tree]

#: A batch: `image` float32 [B, H, W, C] in [0, 1], `label` int32 [B] (1 = anomalous), `_valid`
#: bool [B] (False = padding), and `_index` int32 [B], the place in the global batch of training or
#: in the split. For a `PretrainedModel` also `features` [B, ...] if they are cached.
Batch = Mapping[str, Array]

#: A key for each example, made from its place in the global batch.
ExampleKeys = Key[Array, " batch"]

Images = Float[Array, "batch height width channels"]
PerExample = Float[Array, " batch"]

#: The patient of each row as a number; see `group_numbers`.
Groups = Int[np.ndarray, " n"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossAux:
    """What a model returns besides its losses.

    Attributes:
        terms: unweighted loss terms and other metrics by name, each [B]; they are logged and must
            be finite. `<network>/<name>` is logged with the updates of that network only.
        mutable: updated non-parameter collections (batch-norm statistics, codebooks), `{}` if none.
    """

    terms: Mapping[str, PerExample]
    mutable: Mapping[str, Tree]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """Anomaly scores of B images; higher is more anomalous.

    Attributes:
        image: the anomaly score of each image, float32 [B].
        pixel: the anomaly map, float32 [B, H, W].
        components: the parts of the image score and other values per image, each float32 [B].
        reconstructions: images like the input by name, each float32 [B, H, W, C]; the best one is
            named `reconstruction`. `{}` for a model that does not reconstruct.
        maps: anomaly maps by name, each float32 [B, H, W], for a model that has several; `pixel` is
            one of them.
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
    """A model that scores images; either a `TrainedModel` or a `FittedModel`.

    A model depends on no config, mesh, or data set. Its field `axis_name` is the name of the mapped
    axis that batch statistics are summed over; None on one device.

    Attributes:
        image_shape: (H, W, C) of the images.
        num_latents: number of latent variables (or codes) of an image, 0 if there are none.
        score_weights: component -> weight; `Scores.image` is the weighted sum of these components.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def num_latents(self) -> int: ...

    @property
    def score_weights(self) -> Mapping[str, float]: ...

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns initial variables; trained or fitted ones have the same shapes and dtypes."""
        ...

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images deterministically; no score depends on the other images."""
        ...


@runtime_checkable
class TrainedModel(Model, Protocol):
    """A model that is trained by gradients.

    Attributes:
        networks: name of a network, and of its loss -> regular expression over paths such as
            `trunk/up_0/kernel`: the parameters and the mutable state that the loss trains. The
            validation loss of the first network decides which checkpoint is best. A model with one
            loss has `{"model": ".*"}`.

    A model may also have `prepare(variables, batches) -> variables`: it fits, before the first
    update, what is not trained by gradients; `batches` are those of `FittedModel.fit`.

    A model may also have `decay_factors`: regular expression over the same paths -> factor of the
    L2 weight decay of these parameters. A loss that is a mean over D dimensions where its paper has
    the sum needs 1 / D, so that the published weight decay keeps its strength.
    """

    @property
    def networks(self) -> Mapping[str, str]: ...

    def losses(
        self, variables: Variables, batch: Batch, keys: ExampleKeys, *, train: bool
    ) -> tuple[Mapping[str, PerExample], LossAux]:
        """Computes per-example losses by network, with terms and mutable collections.

        With `train`, batch norm uses the statistics of the batch and codebooks are updated.
        """
        ...


@runtime_checkable
class FittedModel(Model, Protocol):
    """A model that is fitted in one pass over the training images, without gradients.

    `config.optim`, `config.data.augment`, and the lengths and schedules of `config.train` do not
    apply to it.
    """

    def fit(
        self,
        variables: Variables,
        batches: Iterable[Mapping[str, np.ndarray]],
        key: Key[Array, ""],
    ) -> Variables:
        """Fits the variables.

        With several processes every one of them fits, and the result of the first is kept.

        Args:
            variables: the results of `init_variables` and `PretrainedModel.pretrained_variables`.
            batches: every training image once, in a fixed order, as NumPy arrays; rows that are not
                `_valid` are padding. For a `PretrainedModel` they have `features`.
            key: the key of everything random.

        Returns:
            Variables of the same shapes and dtypes.
        """
        ...


@runtime_checkable
class FeatureExtractor(Protocol):
    """A frozen, pretrained encoder.

    Attributes:
        image_shape: (H, W, C) of the images.
        frozen_collections: the names of the encoder's collections in the variables.
        encoder_description: text that changes with everything else that the features depend on
            besides these collections and the image.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def frozen_collections(self) -> tuple[str, ...]: ...

    @property
    def encoder_description(self) -> str: ...

    def pretrained_variables(self, key: Key[Array, ""]) -> Variables:
        """Reads the frozen collections.

        Args:
            key: the key of a random encoder.

        Raises:
            UserError: the weights cannot be read.
        """
        ...

    def features(self, variables: Variables, images: Images) -> Float[Array, "batch ..."]:
        """Computes the features of images, float32; they do not depend on the other images."""
        ...


@runtime_checkable
class PretrainedModel(FeatureExtractor, Model, Protocol):
    """A model on the features of a frozen encoder, whose variables `init_variables` leaves NaN."""


@dataclasses.dataclass(frozen=True)
class FilesRead:
    """The files that a split was read from.

    Attributes:
        count: number of files, including skipped and blank ones.
        skipped: for each skipped file, the reason.
        slices_left_out: number of slices in range that are constant or have too little foreground
            or an uncertain label.
        sizes: size, such as `512x512` -> number of files.
        lowest: the lowest raw value in any file; None if it was not measured.
        highest: the highest raw value in any file; None if it was not measured.
        blank: the ids of images that are left out because all of their pixels have one value.
        num_noisy: number of files whose background is noise that is normalised as foreground.
    """

    count: int
    skipped: tuple[str, ...]
    slices_left_out: int
    sizes: Mapping[str, int]
    lowest: float | None
    highest: float | None
    blank: tuple[str, ...] = ()
    num_noisy: int = 0


@runtime_checkable
class Pixels(Protocol):
    """Images or masks [N, ...]: a NumPy array, or `StoredPixels`, which reads rows from disk.

    Of NumPy's interface, code may use these members only: an index (an integer, a slice or an array
    of rows) returns a NumPy array, and `take` does not read what it takes. `np.asarray` reads all
    rows into memory, with a warning.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def take(self, indices: Any, /, axis: SupportsIndex | None = None) -> Any: ...


#: Size of a block of rows, bytes.
_BLOCK = 2**24


def row_blocks(pixels: Pixels) -> Iterator[slice]:
    """Yields the rows of images or masks in order, as slices of about 16 MiB of pixels."""
    size = int(np.prod(pixels.shape[1:])) * pixels.dtype.itemsize
    count = max(1, _BLOCK // max(1, size))
    for start in range(0, len(pixels), count):
        yield slice(start, min(start + count, len(pixels)))


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a data set, in NumPy arrays; images and masks may be on disk (see `Pixels`).

    Attributes:
        images: [N, H, W, C], uint8, uint16, or float32 in [0, 1] (see
            `jaxad.data.prepare.preprocess`).
        labels: int32 [N], 1 = anomalous.
        ids: a unique name per image.
        groups: the patient of each image.
        masks: uint8 [N, H, W], 1 = anomalous pixel; None if the data set has none.
        positions: int32 [N], slice index; None if the data set has none.
        files: the files that were read; None for data that do not come from the user's files.
        unnamed: the members of `groups` that are images or files, as no patient is known.
        extra: further columns, text for each image, which tables of scores repeat.
    """

    images: Pixels
    labels: Int[np.ndarray, " n"]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    masks: UInt8[Pixels, "n height width"] | None = None
    positions: Int[np.ndarray, " n"] | None = None
    files: FilesRead | None = None
    unnamed: frozenset[str] = frozenset()
    extra: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, indices: Int[np.ndarray, " m"]) -> "Split":
        """Returns the split with only these rows, in this order."""
        return dataclasses.replace(
            self,
            images=self.images.take(indices, axis=0),
            labels=self.labels[indices],
            ids=tuple(self.ids[index] for index in indices),
            groups=tuple(self.groups[index] for index in indices),
            masks=None if self.masks is None else self.masks.take(indices, axis=0),
            positions=None if self.positions is None else self.positions[indices],
            extra={
                name: tuple(texts[index] for index in indices) for name, texts in self.extra.items()
            },
        )


def group_numbers(groups: Sequence[str]) -> Groups:
    """Numbers the names of groups (patients) consecutively; equal names get equal numbers."""
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
