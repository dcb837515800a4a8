"""The normalizing flow of FrEIA's `AllInOneBlock`, which `jaxad.nn.flow` computes too.

It is written for speed. Channels are the last axis, of maps [B, rows, columns, C] and of vectors
[B, C]: halves and 1x1 convolutions need no change of layout. The fixed order of channels is a
gather, whose gradient is another one, instead of FrEIA's product with a matrix. The factor of a
subnet's output multiplies its last weights. Log-dets are those of every position.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_systems.twin import BatchNorm, Config, Conv, Dense, Tree, copy, take_layers

_CLAMP, _BETA = 2.0, 0.5
#: log(2 pi) / 2, the constant of a standard normal density, per dimension.
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class _Permute(torch.autograd.Function):
    """x[..., order]; autograd's own gradient would be a slow scatter."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        return x.gather(-1, order.expand_as(x))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.gather(-1, inverse.expand_as(gradient)), None, None


class Subnet(nn.Module):
    """Base of the networks that compute a coupling's scale and shift, times `factor`."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def _last(self, layer: Dense, x: torch.Tensor) -> torch.Tensor:
        """Returns a dense layer's output times the factor."""
        return F.linear(x, layer.weight * self.factor, layer.bias * self.factor)


class ConvSubnet(Subnet):
    """A 3x3 convolution, ReLU and a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, factor: float):
        super().__init__(factor)
        self.conv = Conv("conv_0", inputs, inputs, 3)
        self.dense = Dense("conv_1", inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.conv(x.permute(0, 3, 1, 2)), inplace=True)
        return self._last(self.dense, y.permute(0, 2, 3, 1))


class ResNetSubnet(Subnet):
    """A 3x3 convolution, batch norm and ReLU, plus a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, factor: float, has_gain: bool):
        super().__init__(factor)
        self.conv = Conv("conv", inputs, outputs, 3)
        self.norm = BatchNorm("norm", outputs)
        self.shortcut = Dense("shortcut", inputs, outputs)
        self.gain = nn.Parameter(torch.zeros(outputs)) if has_gain else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm(self.conv(x.permute(0, 3, 1, 2))), inplace=True).permute(0, 2, 3, 1)
        shortcut = self._last(self.shortcut, x)
        if self.gain is not None:
            return torch.addcmul(shortcut, y, self.gain * self.factor)
        return torch.add(shortcut, y, alpha=self.factor)


class DenseSubnet(Subnet):
    """Dense layers with ReLU between; without `widths` two hidden ones of four times the input."""

    def __init__(self, inputs: int, outputs: int, factor: float, widths: tuple[int, ...]):
        super().__init__(factor)
        widths = tuple(widths) or (4 * inputs,) * 2
        self.hidden = nn.ModuleList(
            Dense(f"dense_{number}", before, width)
            for number, (before, width) in enumerate(zip((inputs, *widths), widths, strict=False))
        )
        self.dense = Dense(f"dense_{len(widths)}", widths[-1], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self._last(self.dense, x)


class Block(nn.Module):
    """Affine coupling, actnorm and a fixed order of the channels."""

    def __init__(self, channels: int, subnet: nn.Module, global_factor: float):
        super().__init__()
        self.halves, self.subnet = [channels - channels // 2, channels // 2], subnet
        self.global_factor = global_factor
        start = math.log(math.expm1(_BETA / global_factor)) / _BETA  # the factor's inverse
        self.scale = nn.Parameter(torch.full((channels,), start))
        self.offset = nn.Parameter(torch.zeros(channels))
        for name in ("order", "inverse"):
            self.register_buffer(name, torch.arange(channels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns y, the coupling's log scales, and the actnorm's scales [C]."""
        passive, moved = x.split(self.halves, dim=-1)
        log_scale, shift = self.subnet(passive).chunk(2, dim=-1)
        log_scale = _CLAMP * torch.tanh(log_scale)
        moved = torch.addcmul(shift, moved, torch.exp(log_scale))
        scale = self.global_factor * F.softplus(self.scale, beta=_BETA)
        y = torch.addcmul(self.offset, torch.cat([passive, moved], dim=-1), scale)
        return _Permute.apply(y, self.order, self.inverse), log_scale, scale


class Flow(nn.Module):
    """Maps z to z' of the same shape, for a standard normal density.

    Args:
        channels: size of the last axis.
        model: `config.model`; the second half moves, and the orders are random.
        subnet: `conv`, `resnet` or `dense`.
        zero_start: whether jaxad's subnets start at zero: `resnet` ones then have a gain.
    """

    def __init__(self, channels: int, model: Config, subnet: str, zero_start: bool = False):
        super().__init__()
        assert model.get("permutation", "random") == "random"
        assert model.get("moves", "second") == "second"
        factor = model.get("output_scale", 0.1)
        self.blocks = nn.ModuleList()
        for _ in range(model["num_blocks"]):
            sizes = channels - channels // 2, 2 * (channels // 2), factor
            network: nn.Module
            if subnet == "conv":
                network = ConvSubnet(*sizes)
            elif subnet == "resnet":
                network = ResNetSubnet(*sizes, zero_start)
            else:
                network = DenseSubnet(*sizes, model.get("hidden_widths", ()))
            self.blocks.append(Block(channels, network, model.get("global_scale", 0.1)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns z' and the contribution of every position to log |det dz'/dz|."""
        sums, scales = [], []
        for block in self.blocks:
            x, log_scale, scale = block(x)
            sums.append(log_scale.sum(dim=-1))
            scales.append(scale)
        return x, sum(sums) + torch.stack(scales).log().sum()

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """Returns z' alone."""
        for block in self.blocks:
            x = block(x)[0]
        return x

    def total_order(self) -> torch.Tensor:
        """Returns the channels of z in the order of z'."""
        order = torch.arange(len(self.blocks[0].order), device=self.blocks[0].order.device)
        for block in self.blocks:
            order = order[block.order]
        return order

    def take(self, variables: Tree, name: str) -> None:
        """Copies the variables of one of jaxad's flows.

        Args:
            variables: all variables of the system.
            name: name of the flow in each collection.
        """
        params, orders = variables["params"][name], variables["permutation"][name]
        state = variables.get("batch_stats", {}).get(name, {})
        for number, block in enumerate(self.blocks):
            copy(block.scale, params[f"global_scale_{number}"])
            copy(block.offset, params[f"global_offset_{number}"])
            block.order.copy_(torch.from_numpy(orders[f"block_{number}"].copy()))
            block.inverse.copy_(block.order.argsort())
            subnet = f"subnet_{number}"
            take_layers(block.subnet, params[subnet], state.get(subnet))
            if getattr(block.subnet, "gain", None) is not None:
                copy(block.subnet.gain, params[subnet]["gain"].reshape(-1))
