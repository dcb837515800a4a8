"""The systems by name. A system's module is imported only when it is asked for."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from jaxad.errors import UserError
from jaxad.types import Model


def _pchvae() -> Any:
    from jaxad.models.hierarchical_vae import HierarchicalVAE

    return HierarchicalVAE


def _chvae() -> Any:
    from jaxad.models.hierarchical_vae import ConditionalHierarchicalVAE

    return ConditionalHierarchicalVAE


def _highvae() -> Any:
    from jaxad.models.hierarchical_vae import HighVAE

    return HighVAE


def _lowvae() -> Any:
    from jaxad.models.hierarchical_vae import LowVAE

    return LowVAE


def _vqvae2() -> Any:
    from jaxad.models.vq_vae2 import VQVAE2

    return VQVAE2


def _aeflow() -> Any:
    from jaxad.models.ae_flow import AEFlow

    return AEFlow


def _ae() -> Any:
    from jaxad.models.autoencoder import AutoEncoder

    return AutoEncoder


def _fanogan() -> Any:
    from jaxad.models.f_anogan import FAnoGAN

    return FAnoGAN


def _ganomaly() -> Any:
    from jaxad.models.ganomaly import GANomaly

    return GANomaly


def _differnet() -> Any:
    from jaxad.models.differ_net import DifferNet

    return DifferNet


def _fastflow() -> Any:
    from jaxad.models.fast_flow import FastFlow

    return FastFlow


#: Name -> a function that imports the system's class, a dataclass of its fields.
SYSTEMS: Mapping[str, Callable[[], Any]] = {
    "pchvae": _pchvae,
    "chvae": _chvae,
    "highvae": _highvae,
    "lowvae": _lowvae,
    "vqvae2": _vqvae2,
    "aeflow": _aeflow,
    "ae": _ae,
    "fanogan": _fanogan,
    "ganomaly": _ganomaly,
    "differnet": _differnet,
    "fastflow": _fastflow,
}


def build(name: str, fields: Mapping[str, Any], **common: Any) -> Model:
    """The system of this name.

    Args:
        name: one of `SYSTEMS`.
        fields: `config.model` without its name.
        **common: what every system takes: `image_shape`, `dtype`, `axis_name`.

    Raises:
        UserError: there is no such system, or its fields are others.
    """
    if name not in SYSTEMS:
        close = difflib.get_close_matches(name, SYSTEMS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        raise UserError(
            f"config.model.name: unknown model '{name}'{hint} Known: {', '.join(sorted(SYSTEMS))}."
        )
    system = SYSTEMS[name]()
    known = {field.name: field for field in dataclasses.fields(system) if field.init}
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        raise UserError(
            f"config.model.{unknown[0]}: model '{name}' has no such field; "
            f"it has {', '.join(sorted(known.keys() - common.keys()))}."
        )
    return system(**fields, **common)
