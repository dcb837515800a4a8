"""Systems by name: the shipped ones, and classes of other packages."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxad.errors import UserError, suggest
from jaxad.extension import errors_named, is_external, load_object
from jaxad.types import FittedModel, Model, TrainedModel

_FIELD = "config.model.name"


@dataclasses.dataclass(frozen=True)
class System:
    """A shipped system.

    Attributes:
        name: value of `config.model.name`.
        title: name in reports, tables and figures.
        path: `module:Class`, imported on demand.
        score: what its score is, with unit and range, to continue "the score is".
    """

    name: str
    title: str
    path: str
    score: str


_ELBO = (
    "the negative log-likelihood of the image plus KL divergences of its latents (the parts that "
    "config.model.image_score chooses), in nats per image; it grows with the number of pixels and "
    "can be negative"
)

#: The shipped systems by name.
SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        System("pchvae", "pchVAE", "jaxad.models.hierarchical_vae:HierarchicalVAE", _ELBO),
        System("chvae", "chVAE", "jaxad.models.hierarchical_vae:ConditionalHierarchicalVAE", _ELBO),
        System("highvae", "High VAE", "jaxad.models.hierarchical_vae:HighVAE", _ELBO),
        System("lowvae", "Low VAE", "jaxad.models.hierarchical_vae:LowVAE", _ELBO),
        System(
            "vqvae2",
            "VQ-VAE-2",
            "jaxad.models.vq_vae2:VQVAE2",
            "the mean squared error of the reconstruction plus weighted distances of the latents"
            " from their codes, without unit; at least 0",
        ),
        System(
            "aeflow",
            "AE-FLOW",
            "jaxad.models.ae_flow:AEFlow",
            "a weighted sum of how unlikely the features are under the flow and of minus the "
            "SSIM of the reconstruction, without unit; negative values are common",
        ),
        System(
            "ae",
            "AE",
            "jaxad.models.autoencoder:AutoEncoder",
            "the mean squared error of the reconstruction of an image with intensities in [0, "
            "1]; 0 is perfect",
        ),
        System(
            "fanogan",
            "f-AnoGAN",
            "jaxad.models.f_anogan:FAnoGAN",
            "the mean squared error of the reconstruction plus the weighted distance of the "
            "critic's features, without unit; at least 0",
        ),
        System(
            "ganomaly",
            "GANomaly",
            "jaxad.models.ganomaly:GANomaly",
            "the mean distance of the codes of the image and of its reconstruction, without "
            "unit; at least 0",
        ),
        System(
            "differnet",
            "DifferNet",
            "jaxad.models.differ_net:DifferNet",
            "the negative log-likelihood of the flow's output, a mean over rotated views, in "
            "nats per dimension",
        ),
        System(
            "fastflow",
            "FastFlow",
            "jaxad.models.fast_flow:FastFlow",
            "the negative log-likelihood of the features (the places that "
            "config.model.image_score chooses), in nats per channel; it can be negative",
        ),
        System(
            "patchcore",
            "PatchCore",
            "jaxad.models.patch_core:PatchCore",
            "the distance of the farthest patch from the patches of normal images, in units of "
            "the features; at least 0",
        ),
        System(
            "padim",
            "PaDiM",
            "jaxad.models.padim:PaDiM",
            "the largest Mahalanobis distance of the features at any place from those of normal "
            "images, in standard deviations; at least 0",
        ),
    )
}


def title(name: str) -> str:
    """Returns the readable name of a system.

    Args:
        name: `config.model.name` or an experiment of a study. For a class of another package, the
            class name is shown; any other name is shown with spaces for underscores.
    """
    if name in SYSTEMS:
        return SYSTEMS[name].title
    if is_external(name):
        return name.rpartition(":")[2]
    return name.replace("_", " ") or "Unnamed system"


def score_description(name: str) -> str:
    """Returns what the score of a system is; "" for a class of another package."""
    return SYSTEMS[name].score if name in SYSTEMS else ""


def build(name: str, fields: Mapping[str, Any], **common: Any) -> Model:
    """Builds a system.

    Args:
        name: one of `SYSTEMS`, or `package.module:Class` for a class of another package.
        fields: `config.model` without its name.
        **common: fields that every system has: `image_shape`, `dtype` and `axis_name`.

    Returns:
        An instance of the class: a `TrainedModel` or a `FittedModel`.

    Raises:
        UserError: the system is unknown, it has other fields, or the class lacks a part of the
            interface of `jaxad.types.Model`.
    """
    model_class = _find_class(name)
    if not (isinstance(model_class, type) and dataclasses.is_dataclass(model_class)):
        raise UserError(f"{_FIELD}: '{name}' is not a dataclass; decorate it with @dataclass.")
    known = {field.name: field for field in dataclasses.fields(model_class) if field.init}
    if lacking := [field for field in common if field not in known]:
        raise UserError(
            f"{_FIELD}: '{name}' has no field {', '.join(lacking)}; every system has the fields "
            f"{', '.join(common)}."
        )
    if unknown := sorted(fields.keys() - known.keys()):
        raise UserError(
            f"config.model.{unknown[0]}: model '{name}' has no such field; "
            f"it has {', '.join(sorted(known.keys() - common.keys()))}."
        )
    if missing := [
        field.name
        for field in known.values()
        if field.default is field.default_factory is dataclasses.MISSING
        and field.name not in {*fields, *common}
    ]:
        raise UserError(f"config.model.{missing[0]}: missing, but model '{name}' needs it; set it.")
    with errors_named(f"{_FIELD}: '{name}'", name):
        model: Any = model_class(**fields, **common)
    _check_interface(name, model)
    return model


def _find_class(name: str) -> Any:
    """Imports the class of a system."""
    if name in SYSTEMS:
        return load_object(SYSTEMS[name].path, _FIELD)
    if is_external(name):
        return load_object(name, _FIELD)
    close = suggest(name, SYSTEMS)
    hint = f";{close}" if close else "."
    raise UserError(
        f"{_FIELD}: unknown model '{name}'{hint} Your own class is package.module:Class. "
        f"Known: {', '.join(sorted(SYSTEMS))}."
    )


def _check_interface(name: str, model: object) -> None:
    """Raises a UserError if a system lacks attributes or methods of its protocol."""
    if missing := _missing(Model, model):
        raise UserError(
            f"{_FIELD}: '{name}' has no {', '.join(missing)}; add what jaxad.types.Model describes."
        )
    trained, fitted = _missing(TrainedModel, model), _missing(FittedModel, model)
    if trained and fitted:
        raise UserError(
            f"{_FIELD}: '{name}' cannot be trained: it needs {', '.join(trained)} (see "
            f"jaxad.types.TrainedModel) or {', '.join(fitted)} (see jaxad.types.FittedModel)."
        )
    if not trained and not fitted:
        raise UserError(
            f"{_FIELD}: '{name}' has losses and fit, so it is not clear how it learns; rename "
            "fit of a model that is trained by its losses, or leave losses and networks out."
        )


def _missing(protocol: type, model: object) -> list[str]:
    """Returns the members that a protocol's own body declares and an object lacks."""
    declared = (member for member in vars(protocol) if not member.startswith("_"))
    return [member for member in declared if not hasattr(model, member)]
