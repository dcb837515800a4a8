"""From a scan to its slices: which plane, which of them, how large, and what they are labelled."""

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
from jaxad.data.readers.volumes import Grid, Volume, check_same_grid
from jaxad.errors import DataError, UserError

#: Plane -> the axes (of X right, Y anterior, Z superior) of slices, rows and columns, and whether
#: rows run against theirs, so that anterior or superior is at the top. Columns run to the right,
#: in sagittal slices to the front.
_PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How a volume is cut; see `config.data.volume`.

    Attributes:
        plane: `axial`, `coronal` or `sagittal`.
        slices: start, stop and step as in Python; empty: all.
        spacing: distance of slices in mm; 0: the file's.
        field_of_view: side of a slice in mm, around the middle of the scan; 0: all of it, made
            square as `config.data.preprocess.square` says.
        min_foreground: slices with a smaller part of foreground are left out.
        min_lesion_pixels: with a mask, a slice is anomalous that shows more anomalous pixels than
            these, counted before it is resized; normal with none, in view or out of it; and left
            out between.
    """

    plane: str = "axial"
    slices: tuple[int, ...] = ()
    spacing: float = 0.0
    field_of_view: float = 0.0
    min_foreground: float = 0.02
    min_lesion_pixels: int = 10

    def __post_init__(self) -> None:
        whole = all(isinstance(number, int) for number in self.slices)
        if (
            not whole
            or len(self.slices) not in (0, 2, 3)
            or (len(self.slices) == 3 and self.slices[2] < 1)
        ):
            raise UserError(
                f"config.data.volume.slices: {self.slices}; give (start, stop) or (start, stop, "
                "step) as in Python, such as (20, -20), or () for all."
            )


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices of one scan, in the order of their positions.

    Attributes:
        images: [N, S, S, C].
        positions: their numbers in the scan, after resampling.
        labels: 1 = anomalous by the mask; None without one.
        masks: 1 = anomalous; None without one.
        num_left_out: slices in range that have too little foreground or too small an anomaly.
    """

    images: UInt16[np.ndarray, "n s s c"] | UInt8[np.ndarray, "n s s c"]
    positions: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"] | None
    masks: UInt8[np.ndarray, "n s s"] | None
    num_left_out: int


def cut(
    volumes: list[Volume], mask: Volume | None, settings: Preparation, cutting: Cutting
) -> Slices:
    """The slices of a scan.

    Args:
        volumes: the modalities of the scan, a channel each; intensities are normalised over the
            whole of each, so that a slice keeps its place among the others.
        mask: not 0 = anomalous.
        settings: `auto` stands for volumes.
        cutting: which slices.

    Raises:
        DataError: modalities or mask do not lie on the same grid, a modality is constant, there is
            no slice in range, or one that is not empty is constant.
    """
    settings = settings.of_volumes()
    first = volumes[0]
    for other in volumes[1:]:
        check_same_grid(first, other, "modality")
    if mask is not None:
        check_same_grid(first, mask, "mask")
    slice_axis, row_axis, column_axis = _PLANES[cutting.plane]
    step = first.spacing[slice_axis]
    wanted = cutting.spacing or step

    def planes(voxels: Shaped[np.ndarray, "x y z"]) -> Float[np.ndarray, "n h w"]:
        """Slices x rows x columns, rows from the top, at the wanted distance."""
        turned = np.transpose(voxels, (slice_axis, row_axis, column_axis))[:, ::-1]
        return resample_axis(turned, step, wanted)

    channels, inside = [], None
    for volume in volumes:
        name = str(volume.path)
        check_pixels(volume.voxels, name)
        floats = normalise(volume.voxels, settings, name)
        seen = foreground_of(volume.voxels, settings.foreground, name)
        if floats.dtype != np.float32:  # its range is kept
            floats = quantise(floats).astype(np.float32) / np.iinfo(floats.dtype).max
        channels.append(planes(floats))
        seen = planes(seen.astype(np.float32)) >= 0.5
        inside = seen if inside is None else inside | seen
    assert inside is not None
    numbers = _in_range(len(inside), cutting, first)
    kept = numbers[inside[numbers].mean(axis=(1, 2)) >= max(cutting.min_foreground, 1e-9)]
    frame = Frame.of(
        (float(inside.shape[1]), float(inside.shape[2])),
        settings,
        (first.spacing[row_axis], first.spacing[column_axis]),
        cutting.field_of_view,
    )
    marked, labels = None, None
    if mask is not None:
        # Parts of voxels, where slices lie between those of the file.
        shares = planes((mask.voxels != 0).astype(np.float32))
        marked = shares > 0.5
        counts = frame.seen(marked).sum(axis=(1, 2))
        is_normal, is_anomalous = ~shares.any(axis=(1, 2)), counts > cutting.min_lesion_pixels
        kept = kept[(is_normal | is_anomalous)[kept]]
        labels = is_anomalous[kept].astype(np.int32)
    side = settings.image_size
    images = np.zeros((len(kept), side, side, len(channels)), np.uint16)
    masks = None if marked is None else np.zeros((len(kept), side, side), np.uint8)
    for place, number in enumerate(kept):
        plane = np.stack([channel[number] for channel in channels], axis=-1)
        if (plane == plane[0, 0]).all():
            raise DataError(
                f"{first.path}: slice {number} is constant; leave it out with "
                "config.data.volume.slices, or leave out the scan."
            )
        images[place] = quantise(frame.resize(plane))
        if masks is not None and marked is not None and marked[number].any():
            masks[place] = frame.resize_mask(marked[number])
    return Slices(
        images=images,
        positions=kept.astype(np.int32),
        labels=labels,
        masks=masks,
        num_left_out=len(numbers) - len(kept),
    )


def place_back(
    maps: Float[np.ndarray, "n s s"],
    positions: Int[np.ndarray, " n"],
    grid: Grid,
    settings: Preparation,
    cutting: Cutting,
) -> Float[np.ndarray, "x y z"]:
    """Maps of the slices of a scan on the scan's own grid: what `cut` did, undone.

    Args:
        maps: of each slice.
        positions: of the slices, as `Slices` has them.
        grid: of the scan.
        settings: as it was cut.
        cutting: likewise.

    Returns:
        0 where no slice shows the scan; linearly interpolated in between, and the largest of the
        values that fall on one voxel.
    """
    slice_axis, row_axis, column_axis = _PLANES[cutting.plane]
    count, height, width = (grid.shape[axis] for axis in (slice_axis, row_axis, column_axis))
    step = grid.spacing[slice_axis]
    spacing = (grid.spacing[row_axis], grid.spacing[column_axis])
    frame = Frame.of((float(height), float(width)), settings, spacing, cutting.field_of_view)
    resampled = num_resampled(count, step, cutting.spacing or step)
    planes = np.zeros((resampled, height, width), np.float32)
    for one, position in zip(maps, positions, strict=True):
        planes[position] = frame.place_back(one, (height, width))
    if resampled > count:  # several slices fall on one of the scan's: none of their peaks is lost
        planes = ndimage.maximum_filter1d(planes, -(-resampled // count), axis=0)
    if resampled != count:
        places = np.clip((np.arange(count) + 0.5) * resampled / count - 0.5, 0, resampled - 1)
        below = np.minimum(places.astype(int), max(0, resampled - 2))
        above = np.minimum(below + 1, resampled - 1)
        share = (places - below).astype(np.float32)[:, None, None]
        planes = planes[below] * (1 - share) + planes[above] * share
    return np.transpose(planes[:, ::-1], np.argsort((slice_axis, row_axis, column_axis)))


def _in_range(count: int, cutting: Cutting, volume: Volume) -> Int[np.ndarray, " n"]:
    numbers = np.arange(count)[slice(*cutting.slices)] if cutting.slices else np.arange(count)
    if not len(numbers):
        raise DataError(
            f"{volume.path}: has {count} slices, none in config.data.volume.slices="
            f"{cutting.slices}; widen them or leave out the scan."
        )
    return numbers
