"""Pictures in the page: figures and images as data URIs, masks as SVG outlines."""

import base64
import io
import re
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from jaxad.report import figures
from jaxad.report.columns import Column
from jaxad.runtime import interrupts
from jaxad.storage.workdir import Workdir, atomic_write

_SHADES = 256


def save_figure(workdir: Workdir, name: str, figure: Figure) -> bytes:
    """Writes a figure to `figures/<name>.png` and returns the PNG."""
    interrupts.check()
    png = figures.to_png(figure)
    file_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name) + ".png"
    with atomic_write(workdir.figures / file_name, "wb") as file:
        file.write(png)
    return png


def figure_view(workdir: Workdir, name: str, figure: Figure, alt: str) -> dict[str, Any]:
    """Writes a figure and returns what the page needs to embed it."""
    width, height = figures.css_size(figure)
    source = _data_uri(save_figure(workdir, name, figure))
    return {"source": source, "width": width, "height": height, "alt": alt}


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def panel_view(column: Column, row: int) -> dict[str, Any]:
    """One image of a column for the page and, unless it is RGB, its scale."""
    scale = None
    if column.images.ndim == 3:
        scale = {"low": f"{column.low:g}", "high": f"{column.high:g}"}
        scale["gradient"] = gradient(column.colormap)
    return {"title": column.title, "source": image_uri(column, row), "scale": scale}


def image_uri(column: Column, row: int) -> str:
    """One image of a column as a PNG in a data URI, one pixel per pixel."""
    values = column.images[row].astype(np.float64)
    is_rgb = values.ndim == 3
    low = 0.0 if is_rgb else column.low
    shares = np.clip((values - low) / (column.high - low), 0, 1)
    image = Image.fromarray(np.rint(shares * (_SHADES - 1)).astype(np.uint8))
    if not is_rgb and column.colormap != "gray":
        # A palette takes a third of the bytes of RGB.
        image.putpalette(_palette(column.colormap).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _data_uri(buffer.getvalue())


def _palette(colormap: str) -> UInt8[np.ndarray, "shades 3"]:
    shades = np.arange(_SHADES) / (_SHADES - 1)
    return np.asarray(matplotlib.colormaps[colormap](shades, bytes=True))[:, :3]


def gradient(colormap: str) -> str:
    """A colormap from left to right, as a CSS gradient."""
    stops = _palette(colormap)[:: (_SHADES - 1) // 15]
    return f"linear-gradient(to right, {', '.join('#' + stop.tobytes().hex() for stop in stops)})"


def outline(mask: UInt8[np.ndarray, "height width"]) -> str:
    """The borders of a mask's regions along the edges of pixels, as an SVG path; "" if empty."""
    framed = np.pad(mask > 0, 1)
    parts = []
    for command, changes in (
        ("h", framed[1:, 1:-1] != framed[:-1, 1:-1]),
        ("v", (framed[1:-1, 1:] != framed[1:-1, :-1]).T),
    ):
        # Each run of changes along a line between pixels is one stroke.
        steps = np.diff(np.pad(changes, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
        for (line, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True):
            place = f"{start} {line}" if command == "h" else f"{line} {start}"
            parts.append(f"M{place}{command}{end - start}")
    return "".join(parts)
