"""What is measured of a twin: `config.optim`'s update, and scores."""

import functools
import math
import time
from collections.abc import Callable

import numpy as np
import torch

from torch_systems import make_twin
from torch_systems.twin import Config, Tree, Twin

Task = Callable[[], object]


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


def make_update(twin: Twin, config: Config, num_steps: int) -> Callable[..., torch.Tensor]:
    """One update by (images, features); gives the loss."""
    optim = config["optim"]
    assert optim["name"] == "adam"
    trained = [one for one in twin.parameters() if one.requires_grad]
    optimiser = torch.optim.Adam(
        trained, lr=optim["learning_rate"], betas=(optim["b1"], optim["b2"]),
        weight_decay=optim["weight_decay"], fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, functools.partial(learning_rate, optim, num_steps)
    )

    def update(images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = twin.losses(images, features).mean()
        loss.backward()
        if optim["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(trained, optim["clip_norm"])
        optimiser.step()
        schedule.step()
        return loss.detach()

    return update


def tasks(
    config: Config,
    variables: Tree,
    train_images: np.ndarray,
    score_images: np.ndarray,
    device: str,
) -> dict[str, Task]:
    """What is measured, by name; each is one batch."""
    twin = loaded_twin(config, variables, device)
    update = make_update(twin, config, num_steps=10_000)
    x, y = placed(train_images, device), placed(score_images, device)

    def trained(features: torch.Tensor | None = None) -> torch.Tensor:
        twin.train()
        if hasattr(twin, "encoder"):
            twin.encoder.eval()
        return update(x, features)

    def encode() -> torch.Tensor:
        with torch.inference_mode():
            return twin.encode(x)

    def score() -> torch.Tensor:
        twin.eval()
        with torch.inference_mode():
            return twin.score(y)

    matrix = torch.randn(2048, 2048, device=device)
    found: dict[str, Task] = {"matrix product": lambda: matrix @ matrix}
    if hasattr(twin, "encoder"):
        with torch.no_grad():
            features = twin.encode(x).half()
        found["encoder"] = encode
        found["train from features"] = lambda: trained(features)
        found["train from images"] = trained
    else:
        found["train"] = trained
    return {**found, "score": score}


def first_update(config: Config, variables: Tree, images: np.ndarray, device: str) -> float:
    """Seconds from weights and a batch in memory to the end of the first update."""
    start = time.perf_counter()
    twin = loaded_twin(config, variables, device).train()
    float(make_update(twin, config, num_steps=10_000)(placed(images, device)))
    return time.perf_counter() - start
