"""AE-FLOW in PyTorch with torchvision and FrEIA against ours: the same network, shapes and weights'
scale, in turn in one run.

    pip install -e '.[benchmark]' && python benchmarks/versus_torch.py

PyTorch runs in its best CPU setting: channels_last, every core, no gradients where none are needed.
Measured are the encoder's forward pass, an update of flow and decoder from features that are there
(what training with the feature cache does), an update from images, and the score of images.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import wide_resnet50_2

from jaxad import experiment
from jaxad.config import get_config
from jaxad.parallel import make_parallel, split_cpu
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step

CHANNELS = 1024
Task = Callable[[], object]


class ResNetSubnet(nn.Module):
    """AE-FLOW's second subnet."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x))) + self.shortcut(x)


def conv_subnet(inputs: int, outputs: int) -> nn.Module:
    """AE-FLOW's first subnet, which is FastFlow's."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1), nn.ReLU(), nn.Conv2d(inputs, outputs, 1)
    )


class TorchAEFlow(nn.Module):
    """The paper's network."""

    def __init__(self, subnet: str, size: int):
        super().__init__()
        network = wide_resnet50_2(weights=None).eval()
        self.encoder = nn.Sequential(
            network.conv1, network.bn1, network.relu, network.maxpool,
            network.layer1, network.layer2, network.layer3,
        ).requires_grad_(False)  # fmt: skip
        self.flow = SequenceINN(CHANNELS, size // 16, size // 16)
        for _ in range(8):
            self.flow.append(
                AllInOneBlock,
                subnet_constructor=conv_subnet if subnet == "conv" else ResNetSubnet,
                affine_clamping=2.0,
                global_affine_type="SOFTPLUS",
            )
        parts: list[nn.Module] = []
        inputs = CHANNELS
        for width in (512, 256, 64):
            parts += [nn.ConvTranspose2d(inputs, width, 2, 2), nn.ReLU()]
            parts += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
            inputs = width
        self.decoder = nn.Sequential(*parts, nn.ConvTranspose2d(inputs, 3, 2, 2))

    def train(self, mode: bool = True) -> "TorchAEFlow":
        super().train(mode)
        self.encoder.eval()
        return self


def torch_ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM with a Gaussian window of 11, two one-dimensional convolutions a channel."""
    places = torch.arange(11) - 5.0
    window = torch.exp(-0.5 * (places / 1.5) ** 2)
    window = (window / window.sum()).reshape(1, 1, 1, -1)

    def blur(z: torch.Tensor) -> torch.Tensor:
        z = z.reshape(-1, 1, *z.shape[2:])
        return F.conv2d(F.conv2d(z, window), window.transpose(2, 3))

    a, b = blur(x), blur(y)
    variance_a, variance_b = blur(x * x) - a * a, blur(y * y) - b * b
    covariance = blur(x * y) - a * b
    similarity = (2 * a * b + 1e-4) * (2 * covariance + 9e-4)
    similarity /= (a * a + b * b + 1e-4) * (variance_a + variance_b + 9e-4)
    return similarity.reshape(len(x), -1).mean(dim=1)


def torch_tasks(subnet: str, images: np.ndarray, fold: bool) -> dict[str, Task]:
    """What is measured, in PyTorch."""
    torch.set_num_threads(torch.get_num_threads())
    size = images.shape[1]
    network = TorchAEFlow(subnet, size).to(memory_format=torch.channels_last).train()
    if fold:
        network.encoder = fuse(network.encoder).to(memory_format=torch.channels_last)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    x = x.contiguous(memory_format=torch.channels_last)
    trained = [*network.flow.parameters(), *network.decoder.parameters()]
    trained = [parameter for parameter in trained if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=2e-4, weight_decay=1e-5)
    dimensions = CHANNELS * (size // 16) ** 2

    def encode() -> torch.Tensor:
        with torch.no_grad():
            return network.encoder(x)

    features = encode()

    def update(z: torch.Tensor) -> float:
        optimiser.zero_grad(set_to_none=True)
        z_prime, log_det = network.flow(z)
        flow = (0.5 * (z_prime**2).sum(dim=(1, 2, 3)) - log_det) / dimensions
        loss = 0.5 * flow.mean() + 0.5 * F.mse_loss(network.decoder(z_prime), x)
        loss.backward()
        optimiser.step()
        return float(loss)

    def score() -> torch.Tensor:
        network.eval()
        with torch.no_grad():
            z_prime, _ = network.flow(network.encoder(x))
            log_density = -0.5 * (z_prime**2).sum(dim=(1, 2, 3)) / dimensions
            found = -0.9 * torch.exp(log_density) - 0.1 * torch_ssim(x, network.decoder(z_prime))
        network.train()
        return found

    matrix = torch.randn(2048, 2048)
    return {
        "matrix product": lambda: matrix @ matrix,
        "encoder": encode,
        "update from features": lambda: update(features),
        "update from images": lambda: update(encode()),
        "score": score,
    }


def jax_tasks(subnet: str, images: np.ndarray) -> dict[str, Task]:
    """What is measured, with the functions that training and evaluation call."""
    config = get_config("aeflow:paper")
    config.data.image_size, config.data.channels = images.shape[1], images.shape[3]
    config.model.weights, config.model.subnet = "random", subnet
    config.data.batch_size = len(images)
    parallel = make_parallel("jit")
    model = experiment.make_model(config)
    variables = initial_variables(model, 0)
    phases = experiment.phases(config, model, num_steps=1)
    optimisers = experiment.optimisers(config, model, variables["params"], phases)
    step = parallel.compile_reduce(
        lambda state, batch: train_step(state, batch, model=model, optimisers=optimisers),
        donate_state=True,
    )
    held = {"state": parallel.put_replicated(create_state(variables, optimisers, 0))}
    count = len(images)
    batch = {
        "image": images,
        "label": np.zeros(count, np.int32),
        "_valid": np.ones(count, bool),
        "_index": np.arange(count, dtype=np.int32),
    }
    # A copy: the step donates its state.
    frozen = parallel.put_replicated(jax.tree.map(jnp.copy, variables))
    encode = parallel.compile_per_example(lambda v, b: model.features(v, b["image"]))
    score = parallel.compile_per_example(lambda v, b: model.score(v, b["image"]).image)
    from_images = parallel.put_batch(batch)
    features = np.asarray(encode(frozen, from_images))
    from_features = parallel.put_batch({**batch, "features": features.astype(np.float16)})

    def update(placed: dict[str, jax.Array]) -> float:
        held["state"], metrics = step(held["state"], placed)
        return float(metrics["loss/model"])

    matrix = jax.device_put(np.random.default_rng(0).standard_normal((2048, 2048), np.float32))
    product = jax.jit(jnp.matmul)
    return {
        "matrix product": lambda: jax.block_until_ready(product(matrix, matrix)),
        "encoder": lambda: jax.block_until_ready(encode(frozen, from_images)),
        "update from features": lambda: update(from_features),
        "update from images": lambda: update(from_images),
        "score": lambda: jax.block_until_ready(score(frozen, from_images)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnet", default="conv", choices=("conv", "resnet"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--devices", type=int, default=1, help="CPU devices that share a batch")
    parser.add_argument("--fold", action="store_true", help="PyTorch's encoder without batch norms")
    parser.add_argument("--only", default="", help="one of the tasks")
    options = parser.parse_args()
    split_cpu(options.devices)
    shape = (options.batch_size, options.size, options.size, 3)
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    sides = {
        "PyTorch": torch_tasks(options.subnet, images, options.fold),
        "jaxad": jax_tasks(options.subnet, images),
    }
    names = [options.only] if options.only else list(sides["jaxad"])
    print(f"{options}, torch {torch.__version__} on {torch.get_num_threads()} threads, "
          f"jax {jax.__version__}")  # fmt: skip
    print("| | PyTorch, s | jaxad, s | PyTorch / jaxad | min | max |\n|---|---|---|---|---|---|")
    for name in names:
        times: dict[str, list[float]] = {side: [] for side in sides}
        for side in sides:
            sides[side][name]()  # compiled, warmed up
        for _ in range(options.repeats):
            for side in sides:
                start = time.perf_counter()
                sides[side][name]()
                times[side].append(time.perf_counter() - start)
        ratios = [a / b for a, b in zip(times["PyTorch"], times["jaxad"], strict=True)]
        medians = " | ".join(f"{statistics.median(times[side]):.3f}" for side in sides)
        print(
            f"| {name} | {medians} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | "
            f"{max(ratios):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
