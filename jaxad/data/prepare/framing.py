"""Which part of a plane is seen, as a square of pixels: crops, padding and antialiased resizing."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from jaxad.data.prepare.preparation import LARGEST, Preparation


@dataclasses.dataclass(frozen=True)
class Frame:
    """Which part of a plane is seen, and where in the square it lies.

    Attributes:
        box: first row, first column, end row and end column of the part, in pixels, fractions
            among them.
        size: rows and columns that the part becomes.
        side: rows and columns of the square; what is not covered is 0, evenly around.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    side: int

    @classmethod
    def of(
        cls,
        shape: tuple[float, float],
        settings: Preparation,
        spacing: tuple[float, float] = (1.0, 1.0),
        field_of_view: float = 0.0,
    ) -> "Frame":
        """The frame of planes of a shape.

        Args:
            shape: rows and columns.
            settings: how a plane becomes square, and how large.
            spacing: of rows and of columns, in mm.
            field_of_view: side of the square in mm, around the middle of the plane; 0: the longer
                side is seen whole, or the shorter one, as `settings.square` says.
        """
        extents = [length * step for length, step in zip(shape, spacing, strict=True)]
        square = settings.square
        target = field_of_view or (min(extents) if square == "crop" else max(extents))
        starts, ends, sizes = [], [], []
        for length, extent in zip(shape, extents, strict=True):
            whole = extent if square == "stretch" and not field_of_view else target
            seen = min(1.0, whole / extent)
            starts.append(length * (1 - seen) / 2)
            ends.append(length * (1 + seen) / 2)
            share = min(1.0, extent / whole)
            # At least a pixel: a plane may be much longer than it is wide.
            sizes.append(max(1, round(settings.image_size * share)))
        box = (starts[0], starts[1], ends[0], ends[1])
        return cls(box, (sizes[0], sizes[1]), settings.image_size)

    def seen(self, planes: Shaped[np.ndarray, "n h w"]) -> Shaped[np.ndarray, "n k l"]:
        """The pixels whose middle is in the box."""
        ends = [math.ceil(end - 0.5) for end in self.box]
        return planes[:, ends[0] : ends[2], ends[1] : ends[3]]

    def resize(self, plane: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "s s c"]:
        """The square, antialiased; of the plane's type, but uint16 becomes float32 in [0, 1]."""
        channels = plane.shape[-1]
        if plane.dtype == np.uint8 and channels in (1, 3):
            whole = np.ascontiguousarray(plane[..., 0] if channels == 1 else plane)
            return self.resize_plain(Image.fromarray(whole))
        floats = plane.astype(np.float32)
        if plane.dtype in LARGEST:
            floats /= np.float32(LARGEST[plane.dtype])
        parts = [self._resize(Image.fromarray(floats[..., one])) for one in range(channels)]
        return self._in_square(np.stack([np.asarray(part) for part in parts], axis=-1))

    def resize_plain(self, image: Image.Image) -> UInt8[np.ndarray, "s s c"]:
        """The square of an image of mode L or RGB, antialiased."""
        resized = np.asarray(self._resize(image))
        return self._in_square(resized.reshape(*self.size, len(image.getbands())))

    def _in_square(self, resized: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "s s c"]:
        if self.size == (self.side, self.side):
            return resized
        square = np.zeros((self.side, self.side, resized.shape[-1]), resized.dtype)
        row, column = ((self.side - length) // 2 for length in self.size)
        square[row : row + self.size[0], column : column + self.size[1]] = resized
        return square

    def place_back(
        self, square: Float[np.ndarray, "s s"], shape: tuple[int, int]
    ) -> Float[np.ndarray, "h w"]:
        """What is seen in the square at its place in the plane, linearly interpolated.

        Args:
            square: such as an anomaly map.
            shape: of the plane, rows and columns.

        Returns:
            0 where the square does not see the plane.
        """
        places, inside, windows = [], [], []
        starts, ends = self.box[:2], self.box[2:]
        for length, start, end, size in zip(shape, starts, ends, self.size, strict=True):
            middles = np.arange(length) + 0.5
            border = (self.side - size) // 2
            places.append((middles - start) / (end - start) * size - 0.5 + border)
            windows.append(max(1, math.ceil(size / (end - start))))
            inside.append((middles >= start) & (middles <= end))
            # Not beyond the part: around it the square holds what is no image.
            places[-1] = np.clip(places[-1], border, border + size - 1)
        grid = np.stack(np.meshgrid(*places, indexing="ij"))
        # Where several of the square's pixels fall on one of the plane's, no peak is lost.
        square = ndimage.maximum_filter(square.astype(np.float32), size=windows)
        found = ndimage.map_coordinates(square, grid, order=1)
        return np.where(inside[0][:, None] & inside[1], found, np.float32(0))

    def resize_mask(self, mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "s s"]:
        """1 where half of a pixel is anomalous; where none is so full, at the fullest.

        An anomaly that is smaller than a pixel stays one, so that label and mask agree.
        """
        share = self.resize(mask.astype(np.float32)[..., None])[..., 0]
        fullest = float(share.max())
        return (
            (share >= min(0.5, fullest)).astype(np.uint8)
            if fullest > 0
            else np.zeros(share.shape, np.uint8)
        )

    def _resize(self, image: Image.Image) -> Image.Image:
        first_row, first_column, end_row, end_column = self.box
        return image.resize(
            (self.size[1], self.size[0]),
            Image.Resampling.BILINEAR,
            box=(first_column, first_row, end_column, end_row),
        )


def num_resampled(count: int, spacing: float, wanted: float) -> int:
    """How many slices there are at another distance."""
    return max(1, round(count * spacing / wanted))


def resample_axis(
    voxels: Float[np.ndarray, "n *rest"], spacing: float, wanted: float
) -> Float[np.ndarray, "m *rest"]:
    """Slices at another distance, antialiased; both distances in mm."""
    count = num_resampled(len(voxels), spacing, wanted)
    if count == len(voxels):
        return voxels
    flat = voxels.reshape(len(voxels), -1).astype(np.float32)
    image = Image.fromarray(flat).resize((flat.shape[1], count), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(count, *voxels.shape[1:])
