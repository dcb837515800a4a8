"""Writes a one-class problem of Fashion-MNIST as image folders; prints the AUROC of PCA's residual.

    python benchmarks/one_class_folder.py --source=fashion --normal=1 --output=fashion_1

`source` holds the four `.gz` files of Fashion-MNIST or MNIST. One class is normal; all test images
of the other classes are anomalous. Images are padded from 28 to 32 pixels.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score


def read(source: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 [N, 32, 32], and the classes, uint8 [N], of `train` or `t10k`."""

    def values(name: str, offset: int) -> np.ndarray:
        content = gzip.decompress((source / f"{part}-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(content, np.uint8, offset=offset)

    images = values("images-idx3", 16).reshape(-1, 28, 28)
    return np.pad(images, ((0, 0), (2, 2), (2, 2))), values("labels-idx1", 8)


def write(images: np.ndarray, folder: Path) -> None:
    """Writes images as PNG files that are named by their number."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--normal", type=int, required=True, help="the normal class, 0 to 9")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--images", type=int, default=2500, help="number of training images")
    parser.add_argument("--components", type=int, default=20, help="of PCA")
    options = parser.parse_args()
    images, classes = read(options.source, "train")
    train = images[classes == options.normal][: options.images]
    write(train, options.output / "train" / "good")
    test, classes = read(options.source, "t10k")
    for label in range(10):
        name = "good" if label == options.normal else f"class_{label}"
        write(test[classes == label], options.output / "test" / name)
    rows, test_rows = (x.reshape(len(x), -1) / 255 for x in (train, test))
    pca = PCA(options.components, svd_solver="full").fit(rows)
    residual = test_rows - pca.inverse_transform(pca.transform(test_rows))
    auroc = roc_auc_score(classes != options.normal, (residual**2).sum(axis=1))
    print(f"class {options.normal}, PCA of {options.components} components: AUROC {auroc:.4f}")


if __name__ == "__main__":
    main()
