"""PatchCore in PyTorch: `jaxad.models.patch_core`."""

import numpy as np
import torch
import torch.nn.functional as F

from torch_systems.fitted import Batches, Compile, Fitted, FittedTwin, eager
from torch_systems.twin import Config, Tree

#: Patches that are compared with the memory at once; bounds the memory in use.
_CHUNK = 2048


class PatchCore(FittedTwin):
    """A memory of patches; its greedy choice is a product with the latest patch and a minimum."""

    def __init__(self, config: Config):
        super().__init__(config)
        model = config["model"]
        self.memory_size, self.candidates = model["memory_size"], model["candidates"]
        self.projection, self.neighbours = model["projection"], model["neighbours"]
        self.register_buffer("memory", torch.zeros(self.memory_size, self.num_channels))

    def load(self, variables: Tree) -> None:
        super().load(variables)
        params = variables["params"]
        self.memory = torch.from_numpy(params["memory"][: int(params["count"])].copy())

    def patches(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the means of 3 x 3 positions of all levels, [B * places, channels]."""
        levels = [
            F.interpolate(
                F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False),
                size=(self.side, self.side), mode="bilinear",
            )
            for level in self.levels(features)
        ]  # fmt: skip
        return torch.cat(levels, dim=1).permute(0, 2, 3, 1).flatten(0, 2)

    @torch.no_grad()
    def fit(self, batches: Batches, rng: np.random.Generator, compiled: Compile = eager) -> Fitted:
        make_patches, choose = compiled(self.patches), compiled(_choose)
        rows = torch.empty(self.candidates, self.num_channels)
        seen = filled = 0
        for features in batches:
            patches = make_patches(features)
            slots = (rng.random(len(patches)) * (seen + np.arange(len(patches)) + 1)).astype(int)
            seen, room = seen + len(patches), min(len(patches), self.candidates - filled)
            rows[filled : filled + room] = patches[:room]
            filled += room
            # Of patches that go to one slot the last one stays: the order of NumPy's assignment.
            kept = room + np.flatnonzero(slots[room:] < self.candidates)
            rows.numpy()[slots[kept]] = patches.numpy()[kept]
        rows = points = rows[:filled]
        if self.num_channels > self.projection:
            shape = (self.num_channels, self.projection)
            matrix = torch.from_numpy(rng.standard_normal(shape, np.float32))
            points = rows @ matrix / self.projection**0.5
        norms, nearest = points.square().sum(dim=1), torch.full((filled,), torch.inf)
        latest, order = torch.tensor(int(rng.integers(filled))), []
        for _ in range(min(self.memory_size, filled)):
            order.append(latest)
            latest = choose(points, norms, nearest, latest)
        self.memory = rows[torch.stack(order)]
        return {"memory": self.memory.numpy()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        centre = self.memory.mean(dim=0)
        patches = self.patches(self.encode(images)) - centre
        memory = self.memory - centre
        norms = memory.square().sum(dim=1)
        nearest, places = zip(
            *(
                torch.addmm(norms, part, memory.T, alpha=-2).min(1)
                for part in patches.split(_CHUNK)
            ),
            strict=True,
        )
        squared = torch.cat(nearest) + patches.square().sum(dim=1)
        squared = squared.reshape(len(images), -1)
        worst = squared.argmax(dim=1) + torch.arange(len(images)) * squared.shape[1]
        farthest, nearest = patches[worst], memory[torch.cat(places)[worst]]
        distance = (farthest - nearest).square().sum(dim=1).sqrt()
        if self.neighbours == 1:
            return distance
        around = torch.addmm(norms, nearest, memory.T, alpha=-2)
        around.scatter_(1, torch.cat(places)[worst][:, None], -torch.inf)
        count = min(self.neighbours, len(memory))
        neighbours = memory[around.topk(count, largest=False).indices]
        to_places = (farthest[:, None] - neighbours).square().sum(dim=2).sqrt()
        return (1 - to_places.softmax(dim=1)[:, 0]) * distance


def _choose(
    points: torch.Tensor, norms: torch.Tensor, nearest: torch.Tensor, latest: torch.Tensor
) -> torch.Tensor:
    """Updates the squared distances from the chosen points; returns the farthest point."""
    chosen = points.index_select(0, latest[None])[0]
    squared = torch.addmv(norms, points, chosen, alpha=-2) + norms[latest]
    torch.minimum(nearest, squared, out=nearest)
    nearest[latest] = -1.0
    return nearest.argmax()
