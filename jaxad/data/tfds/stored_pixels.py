"""Images and masks that stay on disk, in array_record files, and are read at random."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxad.errors import UserError, first_line
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.storage.paths import show
from jaxad.types import row_blocks

logger = logging.getLogger(__name__)


class Records:
    """The examples of one split of a TFDS builder; threads may share them."""

    def __init__(self, builder: Any, split: str):
        """Opens the files of the split.

        Raises:
            UserError: they cannot be read.
        """
        import tensorflow_datasets as tfds

        from jaxad.data.tfds.quiet import silent_tfds

        self.name = f"{builder.name} {split}"
        self._folder = show(str(builder.data_dir))
        as_stored = tfds.decode.DeserializeMethod.RAW_BYTES
        with self.damage_reported(), silent_tfds():
            self._source = builder.as_data_source(split=split, deserialize_method=as_stored)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, rows: Sequence[int]) -> list[Mapping[str, Any]]:
        """Returns the features of examples by name: `tf.train.Feature`, images as PNG files."""
        parse = tensorflow().train.Example.FromString
        # One by one: for each list of rows, `__getitems__` would start threads, ten times as slow.
        return [parse(self._source[row]).features.feature for row in rows]

    @contextlib.contextmanager
    def damage_reported(self) -> Iterator[None]:
        """Turns errors of files, records and images into a UserError that names the folder."""
        from google.protobuf.message import DecodeError

        errors = (OSError, ValueError, IndexError, RuntimeError, DecodeError)
        try:
            yield
        except (*errors, tensorflow().errors.OpError) as error:
            raise UserError(
                f"cached data in '{self._folder}' are damaged ({first_line(error)}); delete that "
                "folder to prepare them again."
            ) from error


class StoredPixels:
    """The images or masks of a split; see `jaxad.types.Pixels`.

    An index decodes the rows that it names, and nothing is kept.
    """

    def __init__(
        self,
        records: Records,
        feature: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        rows: Int[np.ndarray, " n"] | None = None,
    ):
        """Takes the feature's name, and the shape and dtype of one image or mask.

        `rows` are the numbers of the examples, by default all.
        """
        self._records, self._feature = records, feature
        self._rows = np.arange(len(records)) if rows is None else rows
        self.shape, self.dtype = (len(self._rows), *shape), dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Reads rows, as NumPy indexes the first axis.

        Raises:
            UserError: the files are damaged.
        """
        chosen = self._rows[key]
        rows = np.atleast_1d(chosen)
        pixels = np.empty((len(rows), *self.shape[1:]), self.dtype)
        decode = tensorflow().raw_ops.DecodePng
        with self._records.damage_reported():
            for block in row_blocks(pixels):
                for place, features in enumerate(self._records.read(rows[block].tolist())):
                    (content,) = features[self._feature].bytes_list.value
                    image = decode(contents=content, channels=0, dtype=self.dtype).numpy()
                    pixels[block.start + place] = image.reshape(self.shape[1:])
        return pixels if chosen.ndim else pixels[0]

    def take(self, indices: Any, axis: int | None = 0) -> "StoredPixels":
        """Returns some rows, which stay on disk."""
        assert axis == 0, "only the first axis is on disk"
        rows = self._rows[np.asarray(indices)]
        return StoredPixels(self._records, self._feature, self.shape[1:], self.dtype, rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads all rows, with a warning."""
        size = np.prod(self.shape, dtype=float) * self.dtype.itemsize / 2**30
        logger.warning(
            f"warning: {self._records.name}: this step needs every {self._feature} at once: "
            f"{size:.3g} GiB are read into memory, whatever config.data.in_memory is."
        )
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)
