"""Crops, padding and antialiased resizing: how part of a plane becomes a square image."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.preprocess import to_unit_interval


@dataclasses.dataclass(frozen=True)
class Frame:
    """The part of a plane that is seen, and its place in the square image.

    Attributes:
        box: first row, first column, end row and end column of the part, in (fractional) pixels.
        size: rows and columns that the part becomes.
        side: rows and columns of the square; it is padded with 0 evenly around the part.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    side: int

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        settings: Preparation,
        spacing: tuple[float, float] = (1.0, 1.0),
        field_of_view: float = 0.0,
    ) -> "Frame":
        """Returns the frame for planes of a shape.

        Args:
            shape: rows and columns.
            settings: how a plane becomes square, and the size of the square.
            spacing: the spacing of rows and of columns, in mm.
            field_of_view: side of the square in mm, around the middle of the plane; 0: the longer
                or the shorter side of the plane, as `settings.square` says.
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
            # At least one pixel: a plane may be much longer than it is wide.
            sizes.append(max(1, round(settings.image_size * share)))
        box = (starts[0], starts[1], ends[0], ends[1])
        return cls(box, (sizes[0], sizes[1]), settings.image_size)

    def seen(self, planes: Shaped[np.ndarray, "n h w"]) -> Shaped[np.ndarray, "n k l"]:
        """Returns the pixels whose centre lies in the box."""
        first_row, first_column, end_row, end_column = (math.ceil(edge - 0.5) for edge in self.box)
        return planes[:, first_row:end_row, first_column:end_column]

    def resize(self, plane: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "s s c"]:
        """Resizes the frame's part of a plane to the square image, with antialiasing.

        uint8 with 1 or 3 channels stays uint8; anything else becomes float32, integers in [0, 1].
        """
        channels = plane.shape[-1]
        if plane.dtype == np.uint8 and channels in (1, 3):
            pixels = np.ascontiguousarray(plane[..., 0] if channels == 1 else plane)
            return self.resize_plain(Image.fromarray(pixels))
        floats = to_unit_interval(plane)
        resized = [self._resize(Image.fromarray(floats[..., index])) for index in range(channels)]
        return self._pad(np.stack([np.asarray(channel) for channel in resized], axis=-1))

    def resize_plain(self, image: Image.Image) -> UInt8[np.ndarray, "s s c"]:
        """Resizes the frame's part of an image of mode L or RGB to the square image."""
        resized = np.asarray(self._resize(image))
        return self._pad(resized.reshape(*self.size, len(image.getbands())))

    def _resize(self, image: Image.Image) -> Image.Image:
        first_row, first_column, end_row, end_column = self.box
        return image.resize(
            (self.size[1], self.size[0]),
            Image.Resampling.BILINEAR,
            box=(first_column, first_row, end_column, end_row),
        )

    def _pad(self, resized: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "s s c"]:
        if self.size == (self.side, self.side):
            return resized
        square = np.zeros((self.side, self.side, resized.shape[-1]), resized.dtype)
        row, column = ((self.side - length) // 2 for length in self.size)
        square[row : row + self.size[0], column : column + self.size[1]] = resized
        return square

    def resize_mask(self, mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "s s"]:
        """Resizes a mask: 1 where at least half of a pixel is marked, else at the fullest pixels.

        An anomaly smaller than a pixel stays marked, so that label and mask agree.
        """
        share = self.resize(mask.astype(np.float32)[..., None])[..., 0]
        fullest = float(share.max())
        if fullest <= 0:
            return np.zeros(share.shape, np.uint8)
        return (share >= min(0.5, fullest)).astype(np.uint8)

    def place_back(
        self, square: Float[np.ndarray, "s s"], shape: tuple[int, int]
    ) -> Float[np.ndarray, "h w"]:
        """Maps a square, such as an anomaly map, back onto the plane, linearly interpolated.

        Args:
            square: the map.
            shape: rows and columns of the plane.

        Returns:
            0 where the square does not cover the plane.
        """
        positions, inside, windows = [], [], []
        starts, ends = self.box[:2], self.box[2:]
        for length, start, end, size in zip(shape, starts, ends, self.size, strict=True):
            centres = np.arange(length) + 0.5
            border = (self.side - size) // 2
            position = (centres - start) / (end - start) * size - 0.5 + border
            # Not beyond the part: the square is padded around it.
            positions.append(np.clip(position, border, border + size - 1))
            windows.append(max(1, math.ceil(size / (end - start))))
            inside.append((centres >= start) & (centres <= end))
        grid = np.stack(np.meshgrid(*positions, indexing="ij"))
        # If several pixels of the square fall on one of the plane, the largest value is kept.
        square = ndimage.maximum_filter(square.astype(np.float32), size=windows)
        values = ndimage.map_coordinates(square, grid, order=1)
        return np.where(inside[0][:, None] & inside[1], values, np.float32(0))


def num_resampled(count: int, spacing: float, new_spacing: float) -> int:
    """Returns the number of slices after resampling to another spacing."""
    return max(1, round(count * spacing / new_spacing))


def resample_axis(
    voxels: Float[np.ndarray, "n *rest"], spacing: float, new_spacing: float
) -> Float[np.ndarray, "m *rest"]:
    """Resamples the first axis to another spacing in mm, antialiased."""
    count = num_resampled(len(voxels), spacing, new_spacing)
    if count == len(voxels):
        return voxels
    flat = voxels.reshape(len(voxels), -1).astype(np.float32)
    image = Image.fromarray(flat).resize((flat.shape[1], count), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(count, *voxels.shape[1:])
