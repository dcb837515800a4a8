"""Models of other packages are tried before a run: every mistake is one line that names it."""

import dataclasses
import sys
from typing import Any, ClassVar

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from jaxad.config import base
from jaxad.errors import UserError
from jaxad.train import checks
from jaxad.types import LossAux, Scores


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Scales images by one parameter; `mistake` makes one method wrong."""

    image_shape: tuple[int, int, int]
    dtype: Any
    axis_name: str | None
    mistake: str = ""
    num_latents: ClassVar[int] = 0
    score_weights: ClassVar[dict[str, float]] = {"mse": 1.0}

    @property
    def networks(self):
        return {"list": ["model"], "pattern": {"model": "other"}}.get(self.mistake, {"model": ".*"})

    @property
    def decay_factors(self):
        wrong = {"decay": [".*"], "decay pattern": {"other": 0.5}, "decay value": {"scale": "half"}}
        return wrong.get(self.mistake, {"scale": 0.5})

    def init_variables(self, key):
        return {} if self.mistake == "no params" else {"params": {"scale": jnp.zeros(())}}

    def losses(self, variables, batch, keys, *, train):
        if self.mistake == "fails":
            raise RuntimeError("no such layer\nat all")
        error = ((variables["params"]["scale"] - 1) * batch["image"]) ** 2
        mse = error.mean((1, 2, 3))
        name = "other" if self.mistake == "loss name" else "model"
        losses = {name: error.mean() if self.mistake == "loss shape" else mse}
        return losses if self.mistake == "no aux" else (losses, LossAux({"mse": mse}, {}))

    def score(self, variables, images):
        error = ((variables["params"]["scale"] - 1) * images) ** 2
        if self.mistake == "batch":
            error = error / error.mean(keepdims=True)
        mse = error.mean((1, 2, 3))
        if self.mistake == "no scores":
            return None
        scores = object.__new__(Scores)  # the tests check types; a user's run does not
        scores.__dict__.update(
            image={"image": mse.mean(), "sum": 2 * mse}.get(self.mistake, mse),
            pixel=error if self.mistake == "pixel" else error.mean(-1),
            components={} if self.mistake == "components" else {"mse": mse},
            reconstructions={"reconstruction": mse} if self.mistake == "reconstruction" else {},
            maps={},
        )
        return scores


def check(mistake, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_models", sys.modules[__name__])
    config = base()
    config.data.image_size = 8
    config.model = ConfigDict({"name": "my_models:Scaled", "mistake": mistake})
    checks.check(config)


def test_a_right_model_passes(monkeypatch):
    check("", monkeypatch)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("no params", r"init_variables: returned a dict; return a mapping with 'params'"),
        ("list", r"networks: is a list; give a mapping"),
        ("pattern", r"networks\['model'\]: 'other' matches no parameter"),
        ("decay", r"decay_factors: is a list; give a mapping"),
        ("decay pattern", r"decay_factors\['other'\]: matches no parameter"),
        ("decay value", r"decay_factors\['scale'\]: is 'half'; give a finite number"),
        ("fails", r"losses: raised RuntimeError: no such layer \(test_trial.py, line \d+\)\."),
        ("loss name", r"losses: returned losses of \['other'\].*\['model'\]"),
        ("loss shape", r"losses: loss 'model' is float32\[\] for 5 images; give \[B\]"),
        ("no aux", r"losses: returned a dict; return losses and a LossAux"),
        ("no scores", r"score: returned None; return a jaxad.types.Scores"),
        ("image", r"score: image is float32\[\] for 5 images; give \[B\]"),
        ("pixel", r"score: pixel is float32\[5, 8, 8, 1\] for 5 images; give \[B, H, W\]"),
        ("components", r"score: components has no 'mse', which score_weights names"),
        ("sum", r"score: image is 0\.6\d+ where the sum .* is 0\.3\d+; return the sum"),
        ("batch", r"score: image of an image changes with the other images of its batch"),
        ("reconstruction", r"score: reconstructions\['reconstruction'\] is float32\[5\]"),
    ],
)
def test_a_mistake_is_one_line_before_training(mistake, message, monkeypatch):
    with pytest.raises(UserError, match=f"my_models:Scaled.{message}") as error:
        check(mistake, monkeypatch)
    assert "\n" not in str(error.value)
