"""Classes of other packages are traced before anything is read: mistakes that would show late."""

import dataclasses
import sys
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from jaxad.config import base
from jaxad.errors import UserError
from jaxad.train import checks
from jaxad.types import LossAux, Scores


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Scores by the mean, with a mistake."""

    image_shape: tuple[int, int, int]
    dtype: Any
    axis_name: str | None
    mistake: str = ""

    num_latents = 0

    @property
    def score_weights(self):
        return {"std" if self.mistake == "component" else "mean": 1.0}

    def init_variables(self, key):
        name = "weights" if self.mistake == "params" else "params"
        return {name: {"shift": jnp.zeros(())}, "state": {"count": jnp.zeros(())}}

    def fit(self, variables, batches, key):
        return variables

    def score(self, variables, images):
        if self.mistake == "raises":
            raise ValueError("no such thing")
        if self.mistake == "kind":
            return images
        mean = images.mean(axis=(1, 2, 3)) + variables["params"]["shift"]
        pixel = images.mean(axis=-1)
        scores = Scores(image=mean, pixel=pixel, components={"mean": mean}, reconstructions={})
        if self.mistake in ("image", "pixel"):  # past the types, which only tests check
            value = {"image": mean.mean(), "pixel": images}[self.mistake]
            object.__setattr__(scores, self.mistake, value)
        return scores


@dataclasses.dataclass(frozen=True)
class Trained(Fitted):
    """The same with a loss."""

    fit = property()  # no method of this class
    networks = {"model": ".*"}

    def losses(self, variables, batch, keys, *, train):
        loss = batch["image"].mean(axis=(1, 2, 3)) + variables["params"]["shift"]
        mutable = {} if self.mistake == "mutable" else {"state": variables["state"]}
        aux = LossAux(terms={"mean": loss}, mutable=mutable)
        if self.mistake == "term":
            aux.terms["mean"] = loss.mean()
        return {"other" if self.mistake == "network" else "model": loss}, aux


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(Fitted=Fitted, Trained=Trained))
    config = base()
    config.data.image_size = 16
    return config


@pytest.mark.parametrize("name", ["Fitted", "Trained"])
def test_a_sound_class_passes(config, name):
    config.model.name = f"mine:{name}"
    checks.check(config)


@pytest.mark.parametrize(
    ("name", "mistake", "words"),
    [
        ("Fitted", "params", "init_variables of 'mine:Fitted' returns no collection 'params'"),
        ("Fitted", "raises", "score of 'mine:Fitted' fails on 2 images .ValueError: no such thing"),
        ("Fitted", "kind", "TypeError: returned DynamicJaxprTracer, not jaxad.types.Scores"),
        ("Fitted", "image", r"returns image of shape \(\) for 2 images, not \(2,\)"),
        (
            "Fitted",
            "pixel",
            r"returns pixel of shape \(2, 16, 16, 1\) for 2 images, not \(2, 16, 16",
        ),
        ("Fitted", "component", "returns no component 'std', which its score_weights name"),
        ("Trained", "term", r"losses of 'mine:Trained' returns terms\['mean'\] of shape \(\)"),
        ("Trained", "network", "returns losses of other, its networks are model"),
        ("Trained", "mutable", r"LossAux.mutable like .* \['state'\]\['count'\] is missing"),
    ],
)
def test_a_mistake_is_one_line_before_data_are_read(config, name, mistake, words):
    config.model.name, config.model.mistake = f"mine:{name}", mistake
    with pytest.raises(UserError, match=words) as error:
        checks.check(config)
    assert "\n" not in str(error.value)
