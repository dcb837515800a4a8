"""No file that a run loads makes an unpickler look up a class or a function."""

import pickle
import zipfile

import numpy as np
from safetensors.numpy import save_file

#: The first thing that a pickle asks for ends the process; it may hold nothing but plain values.
REFUSE = """
import collections, pickle, sys

def hook(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickled: {{arguments}}")

sys.addaudithook(hook)
try:
    pickle.loads(pickle.dumps(collections.OrderedDict()))
except RuntimeError as error:
    assert "unpickled" in str(error)
else:
    raise AssertionError("nothing is noticed")

from jaxad.nn.backbones.weights import read_weights
for name in {weights!r}:
    assert read_weights(name)["weight"].tolist() == [1.0, 2.0]
"""


def write_torch_file(path):
    """Returns the file that torch.save writes for `{"weight": tensor([1., 2.])}`."""
    state = (
        b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07"
        b"\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00"
        b"\x00cpuq\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85q\t\x89ccollections\nOrderedDict\nq"
        b"\n)Rq\x0btq\x0cRq\rs."
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", state)
        archive.writestr("archive/data/0", np.array([1, 2], "<f4").tobytes())
    return path


def test_checkpoints_archives_and_weights_are_read_without_unpickling(
    forker, tiny, trained, tmp_path
):
    save_file({"weight": np.array([1, 2], np.float32)}, tmp_path / "a.safetensors")
    weights = [str(write_torch_file(tmp_path / "a.pth")), str(tmp_path / "a.safetensors")]
    setup = REFUSE.format(weights=weights)
    ended = forker.run(f"--workdir={trained}", "--mode=export", setup=setup)
    assert ended.code == 0, ended.printed
    ended = forker.run(
        f"--workdir={trained / 'detector.jaxad'}",
        "--mode=score",
        f"--input={tiny / 'test_squares.npz'}",
        f"--output={tmp_path / 'scores'}",
        setup=setup,
    )
    assert ended.code == 0, ended.printed
    (trained / "detector.jaxad").unlink()


def test_the_weights_file_is_a_pickle_that_the_patch_detects(tmp_path):
    with zipfile.ZipFile(write_torch_file(tmp_path / "a.pth")) as archive:
        content = archive.read("archive/data.pkl")
    assert b"_rebuild_tensor_v2" in content
    try:
        pickle.loads(content)
    except Exception as error:
        assert "torch" in str(error) or "persistent" in str(error)
    else:
        raise AssertionError("it is no pickle")
