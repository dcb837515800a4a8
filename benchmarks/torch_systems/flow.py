"""The normalizing flow of FrEIA's blocks, which `jaxad.nn.flow` computes too."""

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn

from torch_systems.twin import BatchNorm, Conv, Layer, Tree, subtree


class Block(AllInOneBlock):
    """FrEIA's block, whose fixed order of channels is a gather and not a product with a matrix."""

    def __init__(self, dims_in: list, **settings: object):
        super().__init__(dims_in, **settings)
        self.register_buffer("order", self.w_perm[:, :, 0, 0].argmax(dim=1))

    def _permute(self, x: torch.Tensor, rev: bool = False) -> tuple[torch.Tensor, float]:
        assert not rev
        scale = self._scale()
        y = (x * scale + self.global_offset).index_select(1, self.order)
        return y, torch.sum(torch.log(scale))

    def _scale(self) -> torch.Tensor:
        return 0.1 * self.softplus(self.global_scale)


class ConvSubnet(nn.Sequential):
    """3x3 - relu - 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            Conv("conv_0", inputs, inputs, 3), nn.ReLU(), Conv("conv_1", inputs, outputs, 1)
        )


class ResNetSubnet(nn.Module):
    """relu(batch norm(3x3)) + 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = Conv("conv", inputs, outputs, 3)
        self.norm = BatchNorm("norm", outputs)
        self.shortcut = Conv("shortcut", inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x))) + self.shortcut(x)


_SUBNETS = {"conv": ConvSubnet, "resnet": ResNetSubnet}


def make_flow(channels: int, rows: int, columns: int, blocks: int, subnet: str) -> SequenceINN:
    """A flow over [B, channels, rows, columns]; gives z' and the log-det of each image."""
    flow = SequenceINN(channels, rows, columns)
    for _ in range(blocks):
        flow.append(
            Block,
            subnet_constructor=_SUBNETS[subnet],
            affine_clamping=2.0,
            global_affine_type="SOFTPLUS",
        )
    return flow


def take_flow(flow: SequenceINN, params: Tree, state: Tree, permutations: Tree) -> None:
    """jaxad's weights: `params`, `batch_stats` and `permutation` of a `jaxad.nn.flow.Flow`."""
    for number, block in enumerate(flow.module_list):
        order = torch.from_numpy(permutations[f"block_{number}"].copy()).long()
        with torch.no_grad():
            block.order.copy_(order)
            for ours, name in ((block.global_scale, "scale"), (block.global_offset, "offset")):
                values = params[f"global_{name}_{number}"].copy()
                ours.copy_(torch.from_numpy(values).reshape(ours.shape))
        for layer in block.subnet.modules():
            if isinstance(layer, Layer):
                layer.take(subtree(params[f"subnet_{number}"], layer.path))
            if isinstance(layer, BatchNorm):
                statistics = state[f"subnet_{number}"][layer.path]
                layer.running_mean.copy_(torch.from_numpy(statistics["mean"].copy()))
                layer.running_var.copy_(torch.from_numpy(statistics["var"].copy()))
