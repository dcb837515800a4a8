"""Compares the `folder` reader with PyTorch's DataLoader on the same files, in images per second.

    pip install -e '.[benchmark]'
    python benchmarks/folder_reader.py --images=600 --repeats=5

Both decode with Pillow, resize with antialiasing to 256 x 256 and return 8-bit pixels, on the same
two cores: jaxad with two processes into one array, the DataLoader with two worker processes into
batches of 64. Workers are started, and files are read once, before timing. Both are measured in
turn; a ratio is that of one pair of passes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import InterpolationMode, v2

from jaxad.config import base
from jaxad.data import settings
from jaxad.data.files.folders import read_normal_folder
from jaxad.data.files.reading import read_split
from jaxad.data.files.splitting import Splitting

_SIDE, _BATCH = 256, 64

#: Kind of files -> (height, width, channels, suffix), after OCT2017, ISIC 2018 and PNG exports.
_KINDS = {
    "grey JPEG 496 x 512": (496, 512, 1, ".jpeg"),
    "colour JPEG 450 x 600": (450, 600, 3, ".jpg"),
    "grey PNG 512 x 512": (512, 512, 1, ".png"),
}


class Files(torch.utils.data.Dataset):
    """The files as a PyTorch user would read them."""

    def __init__(self, paths: list[Path], channels: int):
        self._paths, self._mode = paths, "L" if channels == 1 else "RGB"
        self._resize = v2.Resize((_SIDE, _SIDE), InterpolationMode.BILINEAR, antialias=True)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._paths[index]) as image:
            return v2.functional.pil_to_tensor(self._resize(image.convert(self._mode)))


def write_files(folder: Path, kind: str, count: int) -> list[Path]:
    """Writes images of smooth noise, which compress about as well as photographs."""
    height, width, channels, suffix = _KINDS[kind]
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        noise = ndimage.gaussian_filter(rng.normal(size=(height, width, channels)), (3, 3, 0))
        pixels = np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:05d}{suffix}")
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(paths[-1])
    return paths


def readers(folder: Path, paths: list[Path], channels: int) -> dict[str, Callable[[], int]]:
    """Returns the timed functions; each reads every file once and returns the number."""
    data = base().data
    data.name, data.image_size, data.channels = "folder", _SIDE, channels
    data.preprocess.square = "stretch"
    items = read_normal_folder(folder, "image", Splitting())
    reading = settings.reading(data, "image")
    loader = torch.utils.data.DataLoader(
        Files(paths, channels), _BATCH, num_workers=2, persistent_workers=True
    )
    return {
        "jaxad": lambda: len(read_split(items, reading, "files").images),
        "DataLoader": lambda: sum(len(batch) for batch in loader),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for kind, (_, _, channels, _) in _KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = write_files(Path(folder), kind, options.images)
            timed = readers(Path(folder), paths, channels)
            rates: dict[str, list[float]] = {name: [] for name in timed}
            for repeat in range(options.repeats + 1):
                for name, read in timed.items():
                    start = time.perf_counter()
                    assert read() == options.images
                    if repeat:  # the first pass warms up
                        rates[name].append(options.images / (time.perf_counter() - start))
        ratios = [a / b for a, b in zip(rates["jaxad"], rates["DataLoader"], strict=True)]
        figures = ", ".join(
            f"{name} {statistics.median(values):,.0f} images/s"
            f" ({min(values):,.0f} to {max(values):,.0f})"
            for name, values in rates.items()
        )
        print(
            f"{kind}: {figures}, ratio {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
