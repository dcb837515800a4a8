"""The measured functions of a twin: `config.optim`'s updates or the fit, and scores.

The twins of GANs have several networks with an optimiser each. Like jaxad's step, an update trains
the networks of one phase of `config.train.updates`: it takes the gradient of each network's loss
with respect to that network alone, and all gradients before the first network changes.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from torch_systems import make_twin
from torch_systems.adversarial import AdversarialTwin
from torch_systems.fitted import FittedTwin
from torch_systems.twin import Config, Tree, Twin

Task = Callable[[], object]
#: Name of a task -> the networks that its updates train.
Phases = Mapping[str, Sequence[str]]
#: torch.compile's mode, or "" for eager.
Mode = str

_NUM_STEPS = 10_000


def learning_rate(optim: Config, num_steps: int, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero: relative to `learning_rate`."""
    warmup = optim["warmup_steps"]
    if step < warmup:
        return step / warmup
    if optim["schedule"] == "constant":
        return 1.0
    done = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
    return 0.5 * (1 + math.cos(math.pi * done))


def placed(images: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """Images [B, H, W, C] as [B, C, H, W], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(
        device, memory_format=torch.channels_last
    )  # fmt: skip


def loaded_twin(config: Config, variables: Tree, device: str = "cpu") -> Twin:
    """A twin with jaxad's weights."""
    if device == "cuda":  # as JAX multiplies float32 there, unless it is told otherwise
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    twin = make_twin(config)
    twin.load(variables)
    return twin.to(device, memory_format=torch.channels_last)


def compiler(mode: Mode) -> Callable[[Callable], Callable]:
    """Returns what compiles a function: torch.compile in this mode, or nothing for eager."""
    if not mode:
        return lambda function: function
    return functools.partial(torch.compile, mode=mode, dynamic=False)


class Trainer:
    """A twin with the optimisers of its networks.

    Attributes:
        networks: the trained parameters of each network; one network `model` of a system that has
            one loss.
    """

    def __init__(self, twin: Twin, config: Config, mode: Mode = ""):
        self._twin, self._compiled = twin, compiler(mode)
        self._clip_norm = config["optim"]["clip_norm"]
        if isinstance(twin, AdversarialTwin):
            self.networks = twin.networks()
        else:
            self.networks = {"model": [one for one in twin.parameters() if one.requires_grad]}
        self._optimisers = {}
        for name, parameters in self.networks.items():
            optim = {**config["optim"], **config["optim"]["networks"].get(name, {})}
            assert optim["name"] == "adam"
            optimiser = torch.optim.Adam(
                parameters, lr=optim["learning_rate"], betas=(optim["b1"], optim["b2"]),
                eps=optim["epsilon"], weight_decay=optim["weight_decay"], fused=True,
            )  # fmt: skip
            rate = functools.partial(learning_rate, optim, _NUM_STEPS)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
            self._optimisers[name] = (optimiser, schedule)

    def make_update(self, names: Sequence[str]) -> Callable[..., torch.Tensor]:
        """Returns an update of some networks by (images, features); it returns their losses."""
        if isinstance(self._twin, AdversarialTwin):
            gradients = self._compiled(functools.partial(self._network_gradients, names))
        else:
            losses = self._compiled(self._twin.losses)

        def update(images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
            if isinstance(self._twin, AdversarialTwin):
                values, by_network = gradients(images, self._twin.draw_noise(len(images)))
                for name, of_network in zip(names, by_network, strict=True):
                    for parameter, gradient in zip(self.networks[name], of_network, strict=True):
                        parameter.grad = gradient
            else:
                self._optimisers["model"][0].zero_grad(set_to_none=True)
                values = losses(images, features).mean()
                values.backward()
            for name in names:
                self._step(name)
            return values.detach()

        return update

    def _network_gradients(
        self, names: Sequence[str], images: torch.Tensor, noise: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, ...]]]:
        """Returns the losses of networks, and the gradient of each in its own parameters."""
        by_name = self._twin.network_losses(images, names, noise)
        losses = [by_name[name].mean() for name in names]
        gradients = [
            torch.autograd.grad(loss, self.networks[name], retain_graph=name != names[-1])
            for name, loss in zip(names, losses, strict=True)
        ]
        return torch.stack([loss.detach() for loss in losses]), gradients

    def _step(self, name: str) -> None:
        if self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self.networks[name], self._clip_norm)
        optimiser, schedule = self._optimisers[name]
        optimiser.step()
        schedule.step()


def tasks(
    config: Config,
    variables: Tree,
    phases: Phases,
    train_images: np.ndarray,
    score_images: np.ndarray,
    device: str,
    mode: Mode = "",
) -> dict[str, Task]:
    """Returns the measured functions by name; each processes one batch, or fits all images.

    Args:
        config: the config of the run, as plain dicts.
        variables: jaxad's variables, as NumPy arrays.
        phases: the networks that updates train, by the name of their task; empty for a fit.
        train_images: the batch of an update, or all images of a fit.
        score_images: the batch of a score.
        device: PyTorch's device.
        mode: torch.compile's mode; "" for eager.
    """
    twin, compiled = loaded_twin(config, variables, device), compiler(mode)
    y = placed(score_images, device)
    score_twin = compiled(twin.score)

    def score() -> torch.Tensor:
        twin.eval()
        with torch.inference_mode():
            return score_twin(y)

    matrix = torch.randn(2048, 2048, device=device)
    measured: dict[str, Task] = {"matrix product": lambda: matrix @ matrix}
    if isinstance(twin, FittedTwin):
        measured |= _fit_tasks(twin, config["data"]["batch_size"], placed(train_images), compiled)
    else:
        x = placed(train_images, device)
        measured |= _train_tasks(twin, Trainer(twin, config, mode), phases, x, compiled)
    return {**measured, "score": score}


def _train_tasks(
    twin: Twin, trainer: Trainer, phases: Phases, x: torch.Tensor, compiled: Callable
) -> dict[str, Task]:
    """Returns the updates of one batch, and the frozen encoder alone."""
    has_encoder = hasattr(twin, "encoder")

    def trained(update: Callable, features: torch.Tensor | None = None) -> torch.Tensor:
        twin.train()
        if has_encoder:
            twin.encoder.eval()
        return update(x, features)

    updates = {name: trainer.make_update(networks) for name, networks in phases.items()}
    if not has_encoder:
        return {name: functools.partial(trained, update) for name, update in updates.items()}
    encode_twin = compiled(twin.encode)

    def encode() -> torch.Tensor:
        with torch.inference_mode():
            return encode_twin(x)

    with torch.no_grad():
        features = twin.encode(x).half()
    return {
        "encoder": encode,
        "train from features": lambda: trained(updates["train"], features),
        "train from images": lambda: trained(updates["train"]),
    }


def _fit_tasks(
    twin: FittedTwin, batch_size: int, images: torch.Tensor, compiled: Callable
) -> dict[str, Task]:
    """Returns fits of all images, from images and from half-precision features."""
    batches = images.split(batch_size)
    encode_twin = compiled(twin.encode)

    def encode(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return encode_twin(batch)

    @functools.cache
    def features() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(twin.encode(batch).half() for batch in batches)

    def fit(parts: Callable) -> object:
        twin.eval()
        return twin.fit(parts(), np.random.default_rng(0), compiled)

    return {
        "encoder": lambda: encode(batches[0]),
        "fit from features": lambda: fit(features),
        "fit from images": lambda: fit(lambda: map(encode, batches)),
    }


def first_update(
    config: Config, variables: Tree, phases: Phases, images: np.ndarray, device: str, mode: Mode
) -> float:
    """Returns seconds from weights and a batch in memory to the end of the first update."""
    start = time.perf_counter()
    twin = loaded_twin(config, variables, device).train()
    names = next(iter(phases.values()))
    Trainer(twin, config, mode).make_update(names)(placed(images, device)).cpu()
    return time.perf_counter() - start
