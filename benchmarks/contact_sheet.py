"""Draw a contact sheet of the embedded data, to look at after a change to how it is made.

    python benchmarks/contact_sheet.py --image-size 64 --out sheet.png

One row a subject, some subjects of every split. Test subjects are shown twice: bare, to judge
whether their anomalies can be found unaided, and below with the anomalies outlined in red.
"""

import argparse

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxad.data.synthetic.slices import SPLITS, SubjectSlices, make_slices
from jaxad.data.synthetic.template import NUM_SLICES

_TILE = 128
_OUTLINE = (255, 60, 60)


def outline(mask: UInt8[np.ndarray, "n n"]) -> np.ndarray:
    """The pixels of a mask that touch a pixel outside it, as bool [n, n]."""
    padded = np.pad(mask > 0, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return (mask > 0) & ~inner


def subject_row(
    subject: SubjectSlices, positions: np.ndarray, outlined: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """A row of a subject's slices as RGB, its anomalies outlined if asked for."""
    tiles = []
    for position in positions:
        grey = Image.fromarray(subject.images[position]).resize((_TILE, _TILE), Image.BICUBIC)
        tile = np.stack([np.asarray(grey)] * 3, axis=-1)
        if outlined:
            mask = Image.fromarray(subject.masks[position]).resize((_TILE, _TILE), Image.NEAREST)
            tile[outline(np.asarray(mask))] = _OUTLINE
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def contact_sheet(
    image_size: int, seed: int, subjects: int, columns: int
) -> UInt8[np.ndarray, "h w 3"]:
    """`subjects` of every split, `columns` slices each; test subjects bare, then outlined."""
    positions = np.linspace(0, NUM_SLICES - 1, columns).round().astype(int)
    rows = []
    for split in SPLITS:
        for number in range(subjects):
            subject = make_slices(seed, split, number, image_size)
            rows.append(subject_row(subject, positions, outlined=False))
            if split.startswith("test"):
                rows.append(subject_row(subject, positions, outlined=True))
    return np.concatenate(rows, axis=0)


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=64, help="pixels per side of a slice")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set")
    parser.add_argument("--subjects", type=int, default=3, help="subjects per split")
    parser.add_argument("--columns", type=int, default=10, help="slices per subject")
    parser.add_argument("--out", required=True, help="the PNG to write")
    flags = parser.parse_args()
    sheet = contact_sheet(flags.image_size, flags.seed, flags.subjects, flags.columns)
    Image.fromarray(sheet).save(flags.out)
    print(f"{flags.out}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


if __name__ == "__main__":
    main()
