"""What a program runs on: its devices and the versions of jaxad and JAX."""

import sys
from collections.abc import Sequence

import jax


def describe_devices(devices: Sequence[jax.Device]) -> str:
    """Returns the number and kind of devices, such as `2 CPU` or `1 NVIDIA H200 (GPU)`."""
    kind, platform = devices[0].device_kind, devices[0].platform.upper()
    name = platform if kind.upper() == platform else f"{kind} ({platform})"
    return f"{len(devices)} {name}"


def versions() -> dict[str, str]:
    """Returns the versions of jaxad and JAX."""
    # No import: the package lies above this room.
    return {"jaxad": sys.modules["jaxad"].__version__, "jax": jax.__version__}
