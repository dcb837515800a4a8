"""Systems by name: titles, and classes of other packages that are checked before they run."""

import dataclasses
import sys
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

from jaxad import models
from jaxad.errors import UserError
from jaxad.types import FittedModel, Scores, TrainedModel

COMMON = {"image_shape": (8, 8, 1), "dtype": jnp.float32, "axis_name": None}


class _Scoring:
    """The members of `jaxad.types.Model`; the score is the mean of the image."""

    num_latents: ClassVar[int] = 1
    score_weights: ClassVar[dict[str, float]] = {"mean": 1.0}

    def init_variables(self, key: Any) -> dict[str, Any]:
        return {"params": {}}

    def score(self, variables: Any, images: Any) -> Scores:
        mean = jnp.mean(images, axis=(1, 2, 3))
        return Scores(mean, jnp.mean(images, axis=-1), {"mean": mean}, {})


@dataclasses.dataclass(frozen=True)
class Fitted(_Scoring):
    """A fitted system with one field beside the common ones."""

    factor: float
    image_shape: tuple[int, int, int]
    dtype: Any
    axis_name: str | None

    def fit(self, variables: Any, batches: Any, key: Any) -> Any:
        return variables


@dataclasses.dataclass(frozen=True)
class Trained(_Scoring):
    image_shape: tuple[int, int, int]
    dtype: Any
    axis_name: str | None
    networks: ClassVar[dict[str, str]] = {"model": ".*"}

    def losses(self, variables: Any, batch: Any, keys: Any, *, train: bool) -> Any:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Both(Trained):
    def fit(self, variables: Any, batches: Any, key: Any) -> Any:
        return variables


@dataclasses.dataclass(frozen=True)
class OnlyScores(_Scoring):
    image_shape: tuple[int, int, int]
    dtype: Any
    axis_name: str | None


@dataclasses.dataclass(frozen=True)
class Blind:
    image_shape: tuple[int, int, int]
    dtype: Any
    axis_name: str | None
    num_latents: int = 0


@dataclasses.dataclass(frozen=True)
class NoAxis(_Scoring):
    image_shape: tuple[int, int, int]
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Raising(Trained):
    def __post_init__(self) -> None:
        raise TypeError("no\nwidth")


class NotADataclass(_Scoring):
    pass


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """This file as the module of another package."""
    monkeypatch.setitem(sys.modules, "my_models", sys.modules[__name__])


def test_classes_of_other_packages_are_built():
    fitted = models.build("my_models:Fitted", {"factor": 2.0}, **COMMON)
    assert isinstance(fitted, FittedModel) and fitted.factor == 2.0
    assert isinstance(models.build("my_models:Trained", {}, **COMMON), TrainedModel)
    scores = jax.jit(fitted.score)({}, jnp.ones((2, 8, 8, 1)))
    assert scores.image.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("Fitted", {}, "config.model.factor: missing, but model 'my_models:Fitted' needs it"),
        ("Fitted", {"other": 1}, "config.model.other: model .* has no such field; it has factor"),
        ("OnlyScores", {}, "it needs networks, losses .*TrainedModel.* or fit .*FittedModel"),
        ("Both", {}, "has losses and fit, so it is not clear how it learns"),
        ("Blind", {}, "has no score_weights, init_variables, score; add what jaxad.types.Model"),
        ("NoAxis", {}, "has no field axis_name; every system has the fields image_shape, dtype"),
        (
            "Raising",
            {},
            r"model.name: 'my_models:Raising': raised TypeError: no \(test_build\.py, lin",
        ),
        ("NotADataclass", {}, "is not a dataclass"),
        ("COMMON", {}, "is not a dataclass"),
        ("Missing", {}, "module 'my_models' has no 'Missing'"),
    ],
)
def test_a_class_that_lacks_something_is_refused_in_one_line(name, fields, message):
    with pytest.raises(UserError, match=message) as error:
        models.build(f"my_models:{name}", fields, **COMMON)
    assert "\n" not in str(error.value)


def test_titles():
    assert models.title("fanogan") == "f-AnoGAN"
    assert models.title("my_models:Fitted") == "Fitted"
    assert models.title("no_third_term") == "no third term"  # an experiment of a study
    assert models.title("") == "Unnamed system"
