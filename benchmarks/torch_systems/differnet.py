"""DifferNet in PyTorch: `jaxad.models.differ_net`."""

import numpy as np
import torch
import torch.nn.functional as F

from torch_systems.encoders import make_encoder
from torch_systems.flow import HALF_LOG_2PI, Flow
from torch_systems.twin import Config, TrainedTwin, Tree


def rotation_grids(views: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what rotates images by multiples of a full turn over `views`.

    As in dm_pix, pixels that come from outside the image are black. The test is in float32, whose
    rounding makes a part of the border black even for quarter turns.

    Returns:
        Grids [views, side, side, 2] of `F.grid_sample`, and masks [views, 1, side, side] that are 0
        where pixels are black.
    """
    angles = np.float32(2 * np.pi / views) * np.arange(views, dtype=np.float32)
    cosine, sine = (f(angles)[:, None, None] for f in (np.cos, np.sin))
    row, column = np.mgrid[:side, :side].astype(np.float32)
    centre = np.float32((side - 1) / 2)
    rows = cosine * row + sine * column + (centre - (cosine * centre + sine * centre))
    columns = cosine * column - sine * row + (centre - (cosine * centre - sine * centre))
    inside = (rows >= 0) & (rows <= side - 1) & (columns >= 0) & (columns <= side - 1)
    grids = np.stack([columns, rows], axis=-1) * (2 / (side - 1)) - 1
    return torch.from_numpy(grids.astype(np.float32)), torch.from_numpy(inside[:, None]).float()


class DifferNet(TrainedTwin):
    """A flow over pooled features of several scales, averaged over rotated views."""

    def __init__(self, config: Config):
        super().__init__()
        model, self.size = config["model"], config["data"]["image_size"]
        self.views, self.update_views = model["views"], model["update_views"]
        self.scales, strides = model["scales"], model["strides"]
        self.encoder = make_encoder(model["backbone"], strides)
        channels = len(self.scales) * sum(self.encoder.channels[stride] for stride in strides)
        self.dimensions = channels
        self.flow = Flow(channels, model, "dense")
        grids, masks = rotation_grids(self.views, self.size)
        self.register_buffer("grids", grids)
        self.register_buffer("masks", masks)
        self.register_buffer("factors", torch.ones(channels))

    def load(self, variables: Tree) -> None:
        self.encoder.take(variables["encoder"])
        self.flow.take(variables, "flow")
        deviations, strides = self.encoder.deviations, self.encoder.strides
        factors = [
            torch.full(
                (self.encoder.channels[stride],),
                self.encoder.scale * deviations[max(strides)] / deviations[stride],
            )
            for stride in strides
        ]
        self.factors.copy_(torch.cat(factors * len(self.scales)))

    def _rotate(self, images: torch.Tensor, view: int) -> torch.Tensor:
        """Rotates all images by the angle of a view."""
        if view == 0:
            return images
        if 4 * view % self.views == 0:
            rotated = torch.rot90(images, 4 * view // self.views, (2, 3))
        else:
            grid = self.grids[view].expand(len(images), -1, -1, -1)
            rotated = F.grid_sample(images, grid, align_corners=True)
        return (rotated * self.masks[view]).contiguous(memory_format=torch.channels_last)

    def _rotate_each(self, images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """Rotates each image by the angle of its own view; `views` is [B]."""
        rotated = F.grid_sample(images, self.grids[views], align_corners=True) * self.masks[views]
        return rotated.contiguous(memory_format=torch.channels_last)

    def _encode_view(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the pooled features of all scales and strides, [B, D]."""
        parts = []
        for scale in self.scales:
            smaller = images
            if scale > 1:
                side = self.size // scale
                smaller = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
            parts += [level.mean(dim=(2, 3)) for level in self.encoder(smaller)]
        return torch.cat(parts, dim=1) * self.factors

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the features of every view, [B, views, D]."""
        views = [self._encode_view(self._rotate(images, view)) for view in range(self.views)]
        return torch.stack(views, dim=1)

    def _draw(self, count: int) -> torch.Tensor:
        """Draws the numbers of the views of each image in an update, [B, update_views]."""
        noise = torch.rand(count, self.views, device=self.masks.device)
        return noise.argsort(dim=1)[:, : self.update_views]

    def _batch_features(
        self, images: torch.Tensor, features: torch.Tensor | None, sample: bool
    ) -> torch.Tensor:
        """Returns the features of the drawn views, or of all."""
        if not sample:
            return self.encode(images) if features is None else features.float()
        drawn = self._draw(len(images))
        if features is not None:
            index = drawn[:, :, None].expand(-1, -1, self.dimensions)
            return features.gather(1, index).float()
        views = [self._encode_view(self._rotate_each(images, view)) for view in drawn.unbind(1)]
        return torch.stack(views, dim=1)

    def losses(
        self, images: torch.Tensor, features: torch.Tensor | None = None, sample: bool = True
    ) -> torch.Tensor:
        with torch.no_grad():
            y = self._batch_features(images, features, sample)
        z_prime, log_det = self.flow(y.flatten(0, 1))
        nll = (0.5 * (z_prime**2).sum(dim=1) - log_det) / self.dimensions
        return nll.unflatten(0, y.shape[:2]).mean(dim=1) + HALF_LOG_2PI

    def score(self, images: torch.Tensor) -> torch.Tensor:
        y = self.encode(images)
        z_prime = self.flow.latents(y.flatten(0, 1))
        return 0.5 * (z_prime**2).unflatten(0, y.shape[:2]).mean(dim=(1, 2)) + HALF_LOG_2PI
