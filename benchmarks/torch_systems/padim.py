"""PaDiM in PyTorch: `jaxad.models.padim` and `jaxad.models.place_gaussians`."""

import numpy as np
import torch
import torch.nn.functional as F

from torch_systems.fitted import Batches, Compile, Fitted, FittedTwin, eager
from torch_systems.twin import Config, Tree

_RIDGE = 0.01


class PaDiM(FittedTwin):
    """A Gaussian at every position; its fit is batched products and Cholesky factors in float64."""

    def __init__(self, config: Config):
        super().__init__(config)
        count, places = config["model"]["num_channels"], self.side**2
        self.register_buffer("chosen", torch.zeros(count, dtype=torch.long))
        self.register_buffer("mean", torch.zeros(places, count))
        self.register_buffer("whitening", torch.zeros(places, count, count))

    def load(self, variables: Tree) -> None:
        super().load(variables)
        self.chosen.copy_(torch.from_numpy(variables["channels"]["chosen"].copy()))
        for name in ("mean", "whitening"):
            getattr(self, name).copy_(torch.from_numpy(variables["params"][name].copy()))

    def vectors(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the chosen channels at every position, [places, B, channels]."""
        size = (self.side, self.side)
        levels = [F.interpolate(level, size, mode="nearest") for level in self.levels(features)]
        kept = torch.cat(levels, dim=1).index_select(1, self.chosen)
        return kept.permute(2, 3, 0, 1).flatten(0, 1)

    @torch.no_grad()
    def fit(self, batches: Batches, rng: np.random.Generator, compiled: Compile = eager) -> Fitted:
        make_vectors = compiled(self.vectors)
        count, total = 0, torch.zeros(self.mean.shape, dtype=torch.float64)
        products = torch.zeros(self.whitening.shape, dtype=torch.float64)
        shift = total
        for features in batches:
            vectors = make_vectors(features).double()
            # As in jaxad, relative to the mean of the first batch.
            shift = vectors.mean(dim=1) if count == 0 else shift
            vectors = vectors - shift[:, None]
            total += vectors.sum(dim=1)
            products.baddbmm_(vectors.transpose(1, 2), vectors)
            count += vectors.shape[1]
        products.sub_(total[:, :, None] * (total / count)[:, None]).div_(max(count - 1, 1))
        products.diagonal(dim1=1, dim2=2).add_(_RIDGE)
        factor = torch.linalg.cholesky(products)
        identity = torch.eye(factor.shape[-1], dtype=torch.float64)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        self.mean.copy_(shift + total / count)
        self.whitening.copy_(whitening)
        return {"mean": self.mean.numpy(), "whitening": self.whitening.numpy()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        centred = self.vectors(self.encode(images)) - self.mean[:, None]
        whitened = torch.bmm(centred, self.whitening.transpose(1, 2))
        return whitened.square().sum(dim=2).amax(dim=0).sqrt()
