"""From a scan to its slices: plane, selection, size, labels and masks; and from maps back to it."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8, UInt16
from scipy import ndimage

from jaxad.data.prepare.framing import Frame, num_resampled, resample_axis
from jaxad.data.prepare.preparation import (
    Preparation,
    check_pixels,
    foreground_of,
    normalise,
    quantise,
)
from jaxad.data.prepare.preprocess import are_constant, to_unit_interval
from jaxad.data.readers.volumes import Grid, Volume, check_same_grid
from jaxad.errors import DataError, UserError

#: Plane -> the axes (0: X right, 1: Y anterior, 2: Z superior) of slices, rows and columns. Rows
#: are flipped, so that anterior or superior is at the top; columns run to the right, in sagittal
#: slices to the front.
_PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How a volume is cut; see `config.data.volume`."""

    plane: str = "axial"  # `axial`, `coronal` or `sagittal`
    slices: tuple[int, ...] = ()  # start, stop and optionally step, as in Python; empty: all
    spacing: float = 0.0  # distance between slices in mm; 0: that of the file
    #: side of a slice in mm, around the middle of the scan; 0: the whole plane, made square as
    #: `config.data.preprocess.square` says
    field_of_view: float = 0.0
    min_foreground: float = 0.02  # slices with a smaller share of foreground are left out
    #: with a mask, a slice is anomalous if it shows more anomalous pixels than this before
    #: resizing, normal if its plane has none, and left out otherwise
    min_lesion_pixels: int = 10

    def __post_init__(self) -> None:
        if (
            not all(isinstance(number, int) for number in self.slices)
            or len(self.slices) not in (0, 2, 3)
            or (len(self.slices) == 3 and self.slices[2] < 1)
        ):
            raise UserError(
                f"config.data.volume.slices: {self.slices}; give (start, stop) or (start, stop, "
                "step) as in Python, such as (20, -20), or () for all."
            )


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices of one scan, ordered by position."""

    images: UInt16[np.ndarray, "n s s c"] | UInt8[np.ndarray, "n s s c"]  # [N, S, S, C]
    positions: Int[np.ndarray, " n"]  # slice numbers in the (resampled) scan, int32 [N]
    labels: Int[np.ndarray, " n"] | None  # 1 = anomalous, int32 [N]; None without a mask
    masks: UInt8[np.ndarray, "n s s"] | None  # 1 = anomalous; None without a mask
    #: slices in range that are constant, or have too little foreground or too small an anomaly
    num_left_out: int


def cut(
    volumes: list[Volume], mask: Volume | None, settings: Preparation, cutting: Cutting
) -> Slices:
    """Cuts a scan into slices; `auto` in the settings means what it means for volumes.

    The volumes are the modalities of the scan, one per channel. Each is normalised as a whole, so
    that a slice that is darker than others stays so. In the mask, not 0 = anomalous.

    Raises:
        DataError: modalities or mask do not lie on the same grid, a modality is constant, no
            slice is in range, or a mask marks an anomaly in a constant slice.
    """
    settings = settings.of_volumes()
    first = volumes[0]
    for other in volumes[1:]:
        check_same_grid(first, other, "modality")
    if mask is not None:
        check_same_grid(first, mask, "mask")
    slice_axis, row_axis, column_axis = _PLANES[cutting.plane]
    spacing = first.grid.spacing
    step = spacing[slice_axis]

    def to_planes(voxels: Shaped[np.ndarray, "x y z"]) -> Float[np.ndarray, "n h w"]:
        """Returns slices x rows (from the top) x columns, resampled to `cutting.spacing`."""
        planes = np.transpose(voxels, (slice_axis, row_axis, column_axis))[:, ::-1]
        return resample_axis(planes, step, cutting.spacing or step)

    channels, foregrounds = [], []
    for volume in volumes:
        name = str(volume.path)
        check_pixels(volume.voxels, name)
        channels.append(to_planes(to_unit_interval(normalise(volume.voxels, settings, name))))
        inside = foreground_of(volume.voxels, settings.foreground, name)
        foregrounds.append(to_planes(inside.astype(np.float32)) >= 0.5)
    foreground = np.logical_or.reduce(foregrounds)
    in_range = slice(*cutting.slices) if cutting.slices else slice(None)
    numbers = np.arange(len(foreground))[in_range]
    if not len(numbers):
        raise DataError(
            f"{first.path}: has {len(foreground)} slices, none in config.data.volume.slices="
            f"{cutting.slices}; widen that range or leave out the scan."
        )
    kept = numbers[foreground[numbers].mean(axis=(1, 2)) >= max(cutting.min_foreground, 1e-9)]
    height, width = foreground.shape[1:]
    frame = Frame.of(
        (height, width), settings, (spacing[row_axis], spacing[column_axis]), cutting.field_of_view
    )
    marked, labels = None, None
    if mask is not None:
        # Resampled slices hold shares of marked voxels.
        shares = to_planes((mask.voxels != 0).astype(np.float32))
        marked = shares > 0.5
        counts = frame.seen(marked).sum(axis=(1, 2))
        is_normal, is_anomalous = ~shares.any(axis=(1, 2)), counts > cutting.min_lesion_pixels
        kept = kept[(is_normal | is_anomalous)[kept]]
        labels = is_anomalous[kept].astype(np.int32)
    side = settings.image_size
    images = np.zeros((len(kept), side, side, len(channels)), np.uint16)
    masks = None if marked is None else np.zeros((len(kept), side, side), np.uint8)
    is_constant = np.zeros(len(kept), bool)
    for index, number in enumerate(kept):
        plane = np.stack([channel[number] for channel in channels], axis=-1)
        images[index] = quantise(frame.resize(plane))
        is_marked = marked is not None and bool(marked[number].any())
        is_constant[index] = (plane == plane[0, 0]).all() or are_constant(images[index][None])[0]
        if is_constant[index] and is_marked:
            raise DataError(
                f"{first.path}: slice {number} is constant, but its mask marks an anomaly; leave "
                "it out with config.data.volume.slices, or leave out the scan."
            )
        if masks is not None and marked is not None and is_marked:
            masks[index] = frame.resize_mask(marked[number])
    varied = ~is_constant
    return Slices(
        images=images[varied],
        positions=kept[varied].astype(np.int32),
        labels=None if labels is None else labels[varied],
        masks=None if masks is None else masks[varied],
        num_left_out=len(numbers) - int(varied.sum()),
    )


def place_back(
    maps: Float[np.ndarray, "n s s"],
    positions: Int[np.ndarray, " n"],
    grid: Grid,
    settings: Preparation,
    cutting: Cutting,
) -> Float[np.ndarray, "x y z"]:
    """Places maps of slices at their positions on the grid of their scan; the inverse of `cut`.

    Returns:
        The maps, linearly interpolated; the largest of several values that fall on one voxel, and
        0 where no slice covers the scan.
    """
    slice_axis, row_axis, column_axis = _PLANES[cutting.plane]
    count, height, width = (grid.shape[axis] for axis in (slice_axis, row_axis, column_axis))
    step = grid.spacing[slice_axis]
    spacing = (grid.spacing[row_axis], grid.spacing[column_axis])
    frame = Frame.of((height, width), settings, spacing, cutting.field_of_view)
    resampled = num_resampled(count, step, cutting.spacing or step)
    planes = np.zeros((resampled, height, width), np.float32)
    for anomaly_map, position in zip(maps, positions, strict=True):
        planes[position] = frame.place_back(anomaly_map, (height, width))
    if resampled > count:  # several slices fall on one of the scan's: keep the largest value
        planes = ndimage.maximum_filter1d(planes, -(-resampled // count), axis=0)
    if resampled != count:
        centres = np.clip((np.arange(count) + 0.5) * resampled / count - 0.5, 0, resampled - 1)
        below = np.minimum(centres.astype(int), max(0, resampled - 2))
        above = np.minimum(below + 1, resampled - 1)
        share = (centres - below).astype(np.float32)[:, None, None]
        planes = planes[below] * (1 - share) + planes[above] * share
    return np.transpose(planes[:, ::-1], np.argsort((slice_axis, row_axis, column_axis)))
