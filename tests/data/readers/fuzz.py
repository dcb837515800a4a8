"""Reads damaged files with fixed seeds; runs as a separate process, which may crash or hang.

    python fuzz.py FOLDER

A line for each on standard output: its name, and `read` or `refused`. `test_fuzz.py` starts it.
"""

import faulthandler
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from jaxtyping import install_import_hook

faulthandler.enable()
warnings.simplefilter("error")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of imports are not about readers
    install_import_hook("jaxad", "beartype.beartype")
    import highdicom  # noqa: F401
    import numpy as np
    import tifffile
    from PIL import Image
    from samples import png, write_nifti, write_series

    from jaxad.data.files.items import Item, Reading, read_item
    from jaxad.data.prepare.cutting import Cutting
    from jaxad.data.prepare.preparation import Preparation
    from jaxad.errors import DataError
    from jaxad.runtime.cpu_tensorflow import tensorflow

    tensorflow()

#: Limits of reading any file. The limit of address space, which is larger than memory in use,
#: protects the machine.
SECONDS_A_FILE, MORE_MEMORY, ADDRESSES = 5, 2**30, 32 * 2**30

#: Number of files of each kind. PNG and gzip files have checksums, which few damages pass.
COUNTS = {"png": 150, "deep.png": 50, "jpg": 200, "tif": 200, "deep.tif": 100}
COUNTS |= {"nii": 200, "nii.gz": 100, "dcm": 60}


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Damages a content in one or two ways."""
    for _ in range(rng.integers(1, 3)):
        content = WAYS[rng.integers(len(WAYS))](content, rng)
    return content


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes some bytes anywhere."""
    changed = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(0, len(changed), rng.integers(1, 8))
    changed[places] ^= rng.integers(1, 256, len(places), np.uint8)
    return changed.tobytes()


def cut_off(content: bytes, rng: np.random.Generator) -> bytes:
    """Cuts off the end."""
    return content[: rng.integers(1, len(content) + 1)]


def overwrite_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrites some of the first bytes with large, small, negative or invalid numbers."""
    values = (0, 1, 0x7F, 0x80, 0xFF)
    length = int(rng.choice((1, 2, 4, 8)))
    place = rng.integers(0, min(400, len(content)))
    return content[:place] + bytes(rng.choice(values, length).tolist()) + content[place + length :]


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    """Inserts random bytes."""
    place = rng.integers(0, len(content))
    return content[:place] + rng.bytes(rng.integers(1, 40)) + content[place:]


WAYS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    flip,
    cut_off,
    overwrite_header,
    overwrite_header,
    insert,
)


def write_good(folder: Path) -> dict[str, list[Path]]:
    """Writes good files of each kind."""
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 255, (20, 24, n), np.uint8) for n in (1, 3))
    deep = rng.integers(0, 65535, (20, 24, 3), np.uint16)
    voxels = rng.integers(0, 1000, (8, 9, 6)).astype(np.int16)
    (folder / "a.png").write_bytes(png(grey))
    (folder / "b.png").write_bytes(png(colour))
    (folder / "a.deep.png").write_bytes(png(deep))
    Image.fromarray(grey[..., 0]).save(folder / "a.jpg")
    Image.fromarray(colour).save(folder / "b.jpg", progressive=True)
    Image.fromarray(grey[..., 0]).save(folder / "a.tif")
    Image.fromarray(colour).save(folder / "b.tif", compression="tiff_lzw")
    Image.fromarray(colour).save(folder / "c.tif", compression="tiff_adobe_deflate")
    tifffile.imwrite(folder / "a.deep.tif", deep, photometric="rgb", tile=(16, 16))
    tifffile.imwrite(folder / "b.deep.tif", deep[..., 0] / np.float32(65535), compression="zlib")
    write_nifti(folder / "a.nii", voxels)
    write_nifti(folder / "b.nii", voxels.astype(np.float32))
    write_nifti(folder / "a.nii.gz", voxels)
    files = {kind: sorted(folder.glob(f"[abc].{kind}")) for kind in COUNTS}
    write_series(folder / "series", rng.integers(0, 1000, (4, 6, 7)).astype(np.uint16))
    return {**files, "dcm": sorted((folder / "series").iterdir())}


def read(path: Path, kind: str) -> str:
    """Reads a file as a data set does."""
    what = "dicom" if kind == "dcm" else "nifti" if kind.startswith("nii") else "image"
    preparation = Preparation(16, 1, "percentile", "all")  # CT is below 0
    item = Item(id="a", group="a", paths=(path.parent if kind == "dcm" else path,), label=0)
    signal.alarm(SECONDS_A_FILE)  # ends the process
    try:
        rows = read_item(item, Reading(what, preparation, Cutting()))
    except DataError as error:
        message = str(error)
        assert "\n" not in message and str(path.parent) in message, message
        return "refused"
    finally:
        signal.alarm(0)
    assert rows.images.shape[1:] == (16, 16, 1) and rows.images.dtype in (np.uint8, np.uint16)
    return "read"


def most_memory() -> int:
    """Returns the peak memory of this process in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def main() -> None:
    """Reads good files first, so that the memory that they need is not counted."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    folder = Path(sys.argv[1])
    good = write_good(folder)
    for kind, paths in good.items():
        for path in paths:
            assert read(path, kind) == "read", path
    before = most_memory()
    for kind, count in COUNTS.items():
        for number in range(count):
            rng = np.random.default_rng([len(kind), number])
            source = good[kind][number % len(good[kind])]
            content = source.read_bytes()
            path = source if kind == "dcm" else folder / f"bad-{number}.{kind}"
            path.write_bytes(damage(content, rng))
            print(f"{kind} {number}", end=" ", flush=True)
            print(read(path, kind), flush=True)
            if kind == "dcm":
                path.write_bytes(content)
            else:
                path.unlink()
    more = most_memory() - before
    assert more < MORE_MEMORY, f"{more:,} bytes more than good files need"


if __name__ == "__main__":
    main()
