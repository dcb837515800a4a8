"""Reads the tensors of a PyTorch checkpoint without PyTorch and without running its pickle code.

A `.pth` file is a pickle, and unpickling a file may run any program that its writer put there.
Here the pickle is looked through before anything is built from it: only the opcodes that
`torch.save` writes for tensors and only a fixed list of classes may occur, and what stands for
those classes are inert objects of this module. Both layouts are read: the one of torch 0.1.10 to
1.5 (pickles one after another, then the raw storages) and the zip archive that followed it.
"""

import dataclasses
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxad.errors import UserError

#: First pickles of the old layout (torch/serialization.py).
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001

_DTYPES: Mapping[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

_OPCODES = frozenset(
    # fmt: off
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINSTRING",
        "SHORT_BINSTRING",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "APPEND",
        "APPENDS",
        "SETITEM",
        "SETITEMS",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
        "MEMOIZE",
        "GLOBAL",
        "REDUCE",
        "BUILD",
        "BINPERSID",
    ]
    # fmt: on
)


class _Refused(Exception):
    """What in the file is not a tensor's."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage; offset, shape and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a tensor with attributes")


class _Dict(dict):
    """Stands for OrderedDict; the `_metadata` of a state dict is not needed."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Function:
    """Stands for a function of torch; nothing can be attached to it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a function with attributes")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """torch._utils._rebuild_tensor_v2; gradients and hooks are dropped."""
    if not isinstance(storage, _Storage):
        raise _Refused(f"a tensor of a {type(storage).__name__}")
    numbers = (offset, *shape, *strides)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise _Refused(f"a tensor of shape {shape}, strides {strides} and offset {offset}")
    if len(shape) != len(strides):
        raise _Refused(f"a tensor of shape {shape} and strides {strides}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise _Refused(f"a tensor that reaches past the {storage.count} numbers of its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    """torch._utils._rebuild_parameter."""
    return tensor


_CLASSES: Mapping[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    **{f"torch.{name}": np.dtype(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Builds tensors out of inert stand-ins; `storages` are those that it came across."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _CLASSES:
            raise _Refused(f"'{module}.{name}'")
        return _CLASSES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Storage:
        # ('storage', class, key, device, number of elements[, None])
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise _Refused(f"the persistent object {str(pid)[:60]}")
        _, dtype, key, _, count = pid[:5]
        if len(pid) == 6 and pid[5] is not None:
            raise _Refused("a view of a storage")
        if not isinstance(dtype, np.dtype) or not isinstance(count, int) or count < 0:
            raise _Refused(f"a storage of {dtype} with {count} elements")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, count))


def _load_pickle(file: io.BufferedIOBase) -> tuple[Any, Mapping[str, _Storage]]:
    """The next pickle in the file, after it was looked through whole, and its storages by key."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise _Refused(f"the pickle instruction {opcode.name}")
        if opcode.name == "GLOBAL" and str(argument).replace(" ", ".", 1) not in _CLASSES:
            raise _Refused(f"'{str(argument).replace(' ', '.', 1)}'")
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(file.read(end - start))
    return unpickler.load(), unpickler.storages


def _old_layout(file: io.BufferedIOBase) -> tuple[Any, dict[str, bytes], str]:
    """What was saved, the raw storages by key, and the byte order."""
    (magic_number, _), (version, _) = _load_pickle(file), _load_pickle(file)
    if magic_number != _MAGIC_NUMBER or version != _PROTOCOL_VERSION:
        raise _Refused("another magic number or protocol than torch's")
    (system, _), (saved, found) = _load_pickle(file), _load_pickle(file)
    byte_order = "<" if system["little_endian"] else ">"
    keys, _ = _load_pickle(file)
    storages = {}
    for key in keys:
        (count,) = struct.unpack(f"{byte_order}q", file.read(8))
        if count != found[key].count:
            raise ValueError(f"storage {key} has {count} numbers, not {found[key].count}")
        size = count * found[key].dtype.itemsize
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise EOFError(f"{len(storages[key])} of {size} bytes of storage {key} are there")
    return saved, storages, byte_order


def _zip_layout(file: io.BufferedIOBase) -> tuple[Any, dict[str, bytes], str]:
    with zipfile.ZipFile(file) as archive:
        found = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise _Refused(f"a zip archive with {len(found)} files data.pkl")
        folder = found[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Refused("compressed data, which torch does not write")
        order_name = f"{folder}byteorder"
        named = order_name in archive.namelist()
        big = named and archive.read(order_name).strip() == b"big"
        saved, keys = _load_pickle(io.BytesIO(archive.read(found[0])))
        storages = {key: archive.read(f"{folder}data/{key}") for key in keys}
        return saved, storages, ">" if big else "<"


def _tensors_of(saved: Any) -> dict[str, _Tensor]:
    """The tensors of a state dict, alone or under `state_dict` or `model`, by name."""
    for name in ("state_dict", "model"):
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
    if not isinstance(saved, dict):
        raise _Refused(f"a {type(saved).__name__} where a state dict was expected")
    found = {str(name): value for name, value in saved.items() if isinstance(value, _Tensor)}
    if not found:
        raise _Refused("a state dict without tensors")
    return found


def _arrays(
    tensors: Mapping[str, _Tensor], storages: Mapping[str, bytes], byte_order: str
) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in tensors.items():
        dtype = tensor.storage.dtype
        raw = storages[tensor.storage.key]
        if len(raw) < tensor.storage.count * dtype.itemsize:
            raise EOFError(f"the storage of '{name}' is cut short")
        # bfloat16 has no byte order of its own: its two bytes are swapped as an integer's.
        flat = np.frombuffer(raw, np.dtype(f"{byte_order}u{dtype.itemsize}"))
        flat = flat.astype(f"=u{dtype.itemsize}").view(dtype)[tensor.offset :]
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
        yield name, np.array(view)


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` wrote, by name.

    Args:
        path: a `.pth` or `.pt` file of a state dict, alone or under `state_dict` or `model`.

    Raises:
        UserError: the file cannot be read, is cut short, or holds anything but tensors; such a
            thing is named, and nothing of it has run.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            saved, storages, byte_order = (_zip_layout if is_zip else _old_layout)(file)
        return dict(_arrays(_tensors_of(saved), storages, byte_order))
    except _Refused as refused:
        raise UserError(
            f"{path}: refused, it holds {refused}; only the tensors of a state dict are read. Save "
            "`model.state_dict()` again, or use a .safetensors file."
        ) from refused
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    # What damaged pickles and archives end in.
    except (
        EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
        OverflowError, RecursionError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: not a PyTorch checkpoint, or cut short ({error}); download it again."
        ) from error
