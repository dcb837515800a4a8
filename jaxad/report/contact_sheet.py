"""Scored images as a figure, for notebooks."""

import functools
import textwrap
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.errors import UserError
from jaxad.evaluate.examples import Examples
from jaxad.report import figures
from jaxad.report.columns import sheet_columns
from jaxad.types import Scores

#: As many fit left of a sheet's rows.
_LABEL_CHARACTERS = 20


def contact_sheet(
    images: Shaped[np.ndarray, "n height width channels"],
    scores: Scores,
    *,
    masks: Shaped[np.ndarray, "m height width"] | None = None,
    titles: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Figure:
    """What a detector makes of images: one a row, what it sees in them side by side.

    A column has one scale, so that its images can be compared; maps have outlines of the masks.

    Args:
        images: that were scored, uint8, uint16 or float in [0, 1].
        scores: what the detector's `score` gave for them.
        masks: N of them, non-zero where an image is anomalous.
        titles: N texts, beside the rows; by default the scores.
        columns: which, in their order: `input`, the names of `scores.reconstructions`, `residual`,
            those of `scores.maps` (`map_<name>` where a reconstruction has that name) and `mask`;
            by default all.

    Raises:
        UserError: there is no such column, or the numbers of images, titles or masks differ.
    """
    titles = [f"score {score:.4g}" for score in scores.image] if titles is None else titles
    counts = {"images": len(images), "scores": len(scores.image), "titles": len(titles)}
    if masks is not None:
        counts["masks"] = len(masks)
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"contact sheet: {told}; give as many of each.")
    if masks is not None:
        masks = (np.asarray(masks) != 0).astype(np.uint8)
    seen = jax.tree.map(np.asarray, scores)
    found = sheet_columns(
        Examples(
            ids=tuple(titles),
            labels=np.zeros(len(images), np.int64),  # no column shows them
            scores=seen.image,
            images=to_unit_interval(images),
            pixel=seen.pixel,
            reconstructions=seen.reconstructions,
            maps=seen.maps,
            masks=masks,
            kinds={},
        )
    )
    wanted = list(found) if columns is None else list(columns)
    unknown = next((name for name in wanted if name not in found), None)
    if unknown is not None or not wanted:
        raise UserError(
            f"contact sheet: no column '{unknown}'; there are {', '.join(found)}."
            if wanted
            else f"contact sheet: no columns; there are {', '.join(found)}."
        )
    labels = [_wrapped(title) for title in titles]
    figure = figures.contact_sheet([found[name] for name in wanted], labels, masks)
    # What IPython asks for: it draws figures by itself only once pyplot was imported.
    figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _wrapped(title: str) -> str:
    """A title in lines that fit beside the images."""
    return "\n".join(textwrap.fill(line, _LABEL_CHARACTERS) for line in title.split("\n"))


def _png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """The picture, and how wide it is to be shown: it has more pixels than that."""
    width, height = figures.css_size(figure)
    return figures.to_png(figure), {"width": width, "height": height}
