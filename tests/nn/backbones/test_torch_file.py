"""Checkpoints in torch's layouts, written by hand, and files that are refused."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from jaxad.errors import UserError
from jaxad.nn.backbones.torch_file import read_torch_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Global:
    """Pickles to a reference to `module.name`, which need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):  # pickle wants what it calls to be callable
        raise AssertionError


class Tensor:
    """Pickles like a tensor in torch.save."""

    def __init__(self, key, storage, count, offset, shape, strides):
        self.storage = ("storage", Global("torch", storage), key, "cpu", count)
        self.rest = (offset, shape, strides, False, OrderedDict())


class Reduced:
    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, pid):
        self.pid = pid


class Pickler(pickle._Pickler):  # the Python one, whose methods can be extended
    dispatch = dict(pickle._Pickler.dispatch)

    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None

    def save_global_reference(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    def save_tensor(self, value):
        rebuild = Global("torch._utils", "_rebuild_tensor_v2")
        self.save_reduced(Reduced(rebuild, (Storage(value.storage), *value.rest)))

    def save_reduced(self, value):
        self.save(value.function)
        self.save(value.arguments)
        self.write(pickle.REDUCE)

    dispatch[Global] = save_global_reference
    dispatch[Tensor] = save_tensor
    dispatch[Reduced] = save_reduced


def dumps(value) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    return file.getvalue()


ARRAYS = {
    "0": np.arange(24, dtype="<f4"),
    "1": np.asarray([7], "<i8"),
    "2": np.asarray([0.5, -2.0, 3.0], "<f2"),
}
STATE = OrderedDict(
    {
        "conv.weight": Tensor("0", "FloatStorage", 24, 0, (2, 3, 2), (6, 2, 1)),
        "shared": Tensor("0", "FloatStorage", 24, 4, (3, 2), (2, 6)),  # a view, transposed
        "count": Tensor("1", "LongStorage", 1, 0, (), ()),
        "half": Tensor("2", "HalfStorage", 3, 0, (3,), (1,)),
    }
)


def write_old(path, state, arrays=ARRAYS, cut=None):
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
    data = b"".join(dumps(value) for value in (MAGIC, PROTOCOL, system, state, sorted(arrays)))
    for key in sorted(arrays):
        data += struct.pack("<q", arrays[key].size) + arrays[key].tobytes()
    path.write_bytes(data[:cut])
    return path


def write_zip(path, state, arrays=ARRAYS, pickled=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", dumps(state) if pickled is None else pickled)
        archive.writestr("model/byteorder", "little")
        for key, array in arrays.items():
            archive.writestr(f"model/data/{key}", array.tobytes())
    return path


@pytest.mark.parametrize("write", [write_old, write_zip])
@pytest.mark.parametrize("wrapped", [lambda state: state, lambda state: {"state_dict": state}])
def test_both_layouts_are_read(tmp_path, write, wrapped):
    actual = read_torch_file(write(tmp_path / "a.pth", wrapped(STATE)))
    assert list(actual) == list(STATE)
    np.testing.assert_array_equal(actual["conv.weight"], np.arange(12.0).reshape(2, 3, 2))
    # Element (i, j) of the view is number 4 + 2 i + 6 j of the storage.
    np.testing.assert_array_equal(actual["shared"], [[4, 10], [6, 12], [8, 14]])
    assert actual["count"] == 7 and actual["count"].dtype == np.int64
    np.testing.assert_array_equal(actual["half"], [0.5, -2.0, 3.0])
    assert actual["half"].dtype == np.float16


def attack(tmp_path):
    return Reduced(Global("os", "system"), (f"touch {tmp_path / 'ran'}",))


@pytest.mark.parametrize("write", [write_old, write_zip])
@pytest.mark.parametrize("place", ["value", "argument"])
def test_code_is_refused_by_name_and_does_not_run(tmp_path, write, place):
    bad = attack(tmp_path)
    state = {"x": bad} if place == "value" else {"x": Reduced(Global("collections",
             "OrderedDict"), (bad,))}  # fmt: skip
    with pytest.raises(UserError, match="refused because it holds 'os.system'") as error:
        read_torch_file(write(tmp_path / "a.pth", state))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


class Exploit:
    def __reduce__(self):
        return os.system, ("exit 1",)


# Protocols 2 to 5 name functions and build objects in several ways.
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_an_exploit_of_any_protocol_is_refused(tmp_path, protocol, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    pickled = pickle.dumps({"weight": Exploit()}, protocol=protocol)
    with pytest.raises(UserError, match="refused because it holds"):
        read_torch_file(write_zip(tmp_path / "a.pth", None, pickled=pickled))
    (tmp_path / "plain.pth").write_bytes(pickled)
    with pytest.raises(UserError, match="refused because it holds"):
        read_torch_file(tmp_path / "plain.pth")
    assert not ran


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("0", "FloatStorage", 24, 20, (6,), (1,)), "reaches past the 24 numbers"),
        (Tensor("0", "FloatStorage", 24, 0, (10**12,), (0,)), "reaches past the 24 numbers"),
        (Tensor("0", "FloatStorage", 24, -1, (2,), (1,)), "a stride that is not a count"),
        (Tensor("0", "QInt8Storage", 24, 0, (2,), (1,)), "'torch.QInt8Storage'"),
    ],
)
def test_invalid_tensors_are_refused(tmp_path, tensor, message):
    with pytest.raises(UserError, match="refused") as error:
        read_torch_file(write_zip(tmp_path / "a.pth", {"x": tensor}))
    assert message in str(error.value)


def test_nothing_can_be_attached_to_what_a_pickle_names(tmp_path):
    storage = dumps(Storage(("storage", Global("torch", "FloatStorage"), "0", "cpu", 4)))
    for target in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"]", b")", storage[2:-1]):
        pickled = b"\x80\x02}X\x01\x00\x00\x00x" + target + b"}bs."  # {"x": target + state}
        path = write_zip(tmp_path / "a.pth", None, {"0": np.zeros(4, "<f4")}, pickled=pickled)
        with pytest.raises(UserError, match="attributes of something that is not a state dict"):
            read_torch_file(path)


def nested(depth):
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"Ns."  # {((((),),),): None}


def doubled(depth):
    # t = (); t = (t, t) again and again: 2^depth steps to hash, compare or print.
    return b"\x80\x02})q\x00" + b"h\x00\x86q\x00" * depth + b"Ns."


@pytest.mark.parametrize("pickled", [nested(100_000), doubled(64)])
def test_a_pickle_bomb_is_refused_at_once(tmp_path, pickled):
    with pytest.raises(UserError, match="a dict whose keys are not names"):
        read_torch_file(write_zip(tmp_path / "a.pth", None, pickled=pickled))


def test_a_large_memo_index_takes_no_memory(tmp_path):
    # LONG_BINPUT 2^32 - 1: an unpickler would allocate a table of that length.
    pickled = b"\x80\x02}r\xff\xff\xff\xff."
    with pytest.raises(UserError, match="a state dict without tensors"):
        read_torch_file(write_zip(tmp_path / "a.pth", None, pickled=pickled))


def test_many_names_of_one_storage_are_refused(tmp_path):
    state = {f"x{i}": Tensor("0", "FloatStorage", 24, 0, (24,), (1,)) for i in range(40)}
    with pytest.raises(UserError, match="refused because it holds tensors of 3840 bytes"):
        read_torch_file(write_zip(tmp_path / "a.pth", state))


@pytest.mark.parametrize("cut", [10, 40, 200, 700, -1])
def test_a_truncated_file_is_one_line(tmp_path, cut):
    path = write_old(tmp_path / "a.pth", STATE, cut=cut)
    with pytest.raises(UserError, match="a.pth") as error:
        read_torch_file(path)
    assert "\n" not in str(error.value)


def test_a_truncated_archive_is_one_line(tmp_path):
    path = write_zip(tmp_path / "a.pth", STATE)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="truncated"):
        read_torch_file(path)
    arrays = {**ARRAYS, "0": ARRAYS["0"][:3]}
    with pytest.raises(UserError, match="storage 0 is truncated"):
        read_torch_file(write_zip(tmp_path / "c.pth", STATE, arrays))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"GIF89a not a checkpoint"), "a.pth"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: write_zip(path, {"epoch": 3}), "a state dict without tensors"),
        (lambda path: write_zip(path, [1, 2]), "a list where a state dict was expected"),
        (lambda path: write_zip(path, STATE, compression=zipfile.ZIP_DEFLATED), "compressed"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "a.pth"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_other_files_are_one_line(tmp_path, write, message):
    write(tmp_path / "a.pth")
    with pytest.raises(UserError) as error:
        read_torch_file(tmp_path / "a.pth")
    assert message in str(error.value) and "\n" not in str(error.value)
