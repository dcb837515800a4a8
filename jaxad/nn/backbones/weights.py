"""Reads pretrained weights from a file or from the Hugging Face hub."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxad.errors import UserError, first_line
from jaxad.nn.backbones.torch_file import read_torch_file
from jaxad.storage.locations import locate_data

#: Prefix of a repository of the hub in `config.model.weights`: `hub:timm/wide_resnet50_2.tv_in1k`.
HUB = "hub:"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    # KeyError: a dtype that NumPy lacks.
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); download it again."
        ) from error


_READERS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pth": read_torch_file,
    ".pt": read_torch_file,
    ".safetensors": _read_safetensors,
}


def read_weights(where: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a file by name.

    Args:
        where: path of a `.pth`, `.pt` or `.safetensors` file, or `hub:<owner>/<repository>`, with
            an optional `@<revision>`, for the `model.safetensors` of a repository of the Hugging
            Face hub (cached; works offline once it is downloaded).

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if where.startswith(HUB):
        path = _from_hub(where.removeprefix(HUB))
    else:
        path = locate_data(where, "config.model.weights")
    if path.suffix not in _READERS:
        raise UserError(
            f"config.model.weights: '{where}' is not a weights file; name a {', '.join(_READERS)} "
            f"file or {HUB}<owner>/<repository>."
        )
    if not path.is_file():
        raise UserError(f"config.model.weights: no file '{where}'; check the path.")
    return _READERS[path.suffix](path)


def _from_hub(name: str) -> Path:
    """Returns the cached `model.safetensors` of a repository; downloads it if necessary."""
    repository, _, revision = name.partition("@")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"config.model.weights: {HUB}{name} needs huggingface_hub; install it with pip install "
            "'jaxad[hub]'."
        ) from error
    download = huggingface_hub.hf_hub_download
    try:
        return Path(download(repository, "model.safetensors", revision=revision or None))
    except Exception as error:  # of the hub, its HTTP library, the network or the disk
        line = first_line(error)
        raise UserError(
            f"config.model.weights: {HUB}{name} cannot be downloaded ({line}); check the name "
            "and the network, or name a file."
        ) from error
