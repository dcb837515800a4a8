"""Reads the tensors of a PyTorch checkpoint without PyTorch and without unpickling it.

A `.pth` file is a pickle, and unpickling a file may run any program that its writer put there. No
unpickler runs here: this module interprets only the instructions that `torch.save` writes for
tensors, and of the functions and classes that a pickle may name only those of tensors. It reads
both layouts: that of torch 0.1.10 to 1.5 (several pickles, then the raw storages) and the zip
archive that replaced it.
"""

import dataclasses
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxad.errors import UserError

_File = io.BytesIO | io.BufferedReader

#: Content of the first two pickles of the old layout (torch/serialization.py).
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

_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_GLOBALS = frozenset(
    [_ORDERED_DICT, _TENSOR, _PARAMETER, *(f"torch.{storage}" for storage in _DTYPES)]
)

#: Largest ratio of the tensors' bytes to the file's: tensors may be views of one storage.
_LARGEST_EXPANSION = 4


class _Refused(Exception):
    """The file holds something other than tensors."""


class _Mark:
    """Start of a tuple or a group of items on the stack."""


@dataclasses.dataclass(frozen=True)
class _Global:
    """A function or class of `_GLOBALS`."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _make_tensor(arguments: tuple[Any, ...]) -> _Tensor:
    """Does what torch._utils._rebuild_tensor_v2 does, without gradients and hooks."""
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without a storage")
    if type(shape) is not tuple or type(strides) is not tuple or len(shape) != len(strides):
        raise _Refused("a tensor without shape and strides")
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise _Refused("a tensor with an offset, a size or a stride that is not a count")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise _Refused(f"a tensor that reaches past the {storage.count} numbers of its storage")
    return _Tensor(storage, offset, shape, strides)


class _Machine:
    """Interprets a pickle's instructions.

    Attributes:
        storages: the storages that the pickle names, by key.
    """

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: _File) -> Any:
        """Returns the object of the next pickle in the file."""
        for opcode, argument, _ in pickletools.genops(file):
            self._do(opcode.name, argument)
        (result,) = self._stack
        return result

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                stack.append(_Mark())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT"
                | "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING"
            ):  # fmt: skip
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._since_mark())
            case "SETITEM":
                self._update([stack.pop() for _ in range(2)][::-1])
            case "SETITEMS":
                self._update(self._since_mark())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_known_global(argument))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(self._call(stack.pop(), arguments))
            case "BUILD":
                # Discards the `_metadata` of a state dict.
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise _Refused("attributes of something that is not a state dict")
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case _:
                raise _Refused(f"the pickle instruction {name}")

    def _since_mark(self) -> list[Any]:
        items = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise _Refused("items of something that is not a list")
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        target, keys, values = self._stack[-1], items[::2], items[1::2]
        if type(target) is not dict:
            raise _Refused("items of something that is not a dict")
        if not all(type(key) in (str, int) for key in keys):
            raise _Refused("a dict whose keys are not names")
        target.update(zip(keys, values, strict=True))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise _Refused("a call of something that is not a function of tensors")
        match function.name:
            case "collections.OrderedDict" if not arguments:
                return {}
            case "torch._utils._rebuild_tensor_v2" if len(arguments) >= 4:
                return _make_tensor(arguments)
            case "torch._utils._rebuild_parameter" if arguments:
                return arguments[0]
        raise _Refused(f"a call of '{function.name}' with {len(arguments)} arguments")

    def _storage(self, pid: Any) -> _Storage:
        # ('storage', class, key, device, number of elements[, None])
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise _Refused("a persistent object that is not a storage")
        _, kind, key, _, count = pid[:5]
        if len(pid) == 6 and pid[5] is not None:
            raise _Refused("a view of a storage")
        known = isinstance(kind, _Global) and kind.name.removeprefix("torch.") in _DTYPES
        if not known or type(key) is not str or not _is_count(count):
            raise _Refused("a storage without type, name or size")
        dtype = np.dtype(_DTYPES[kind.name.removeprefix("torch.")])
        return self.storages.setdefault(key, _Storage(key, dtype, count))


def _known_global(argument: Any) -> _Global:
    name = str(argument).replace(" ", ".", 1)
    if name not in _GLOBALS:
        raise _Refused(f"'{name}'")
    return _Global(name)


def _load_pickle(file: _File) -> tuple[Any, Mapping[str, _Storage]]:
    """Returns the object of the next pickle in the file, and its storages by key."""
    machine = _Machine()
    return machine.run(file), machine.storages


def _old_layout(file: _File) -> tuple[Any, dict[str, bytes], str]:
    """Reads the saved object, the raw storages by key, and the byte order."""
    (magic_number, _), (version, _) = _load_pickle(file), _load_pickle(file)
    if magic_number != _MAGIC_NUMBER or version != _PROTOCOL_VERSION:
        raise _Refused("another magic number or protocol than torch's")
    (system, _), (saved, named) = _load_pickle(file), _load_pickle(file)
    byte_order = "<" if system["little_endian"] else ">"
    keys, _ = _load_pickle(file)
    storages = {}
    for key in keys:
        (count,) = struct.unpack(f"{byte_order}q", file.read(8))
        if count != named[key].count:
            raise ValueError(f"storage {key} has {count} numbers, not {named[key].count}")
        size = count * named[key].dtype.itemsize
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise EOFError(f"storage {key} has {len(storages[key])} of {size} bytes")
    return saved, storages, byte_order


def _size(file: _File) -> int:
    place = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(place)
    return size


def _zip_layout(file: _File) -> tuple[Any, dict[str, bytes], str]:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise _Refused(f"a zip archive with {len(pickles)} files data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Refused("compressed data, which torch does not write")
        order_name = f"{folder}byteorder"
        has_order = order_name in archive.namelist()
        big = has_order and archive.read(order_name).strip() == b"big"
        saved, stored = _load_pickle(io.BytesIO(archive.read(pickles[0])))
        # Entries may overlap: read no more than the file can hold.
        sizes = [archive.getinfo(f"{folder}data/{key}").file_size for key in stored]
        if sum(sizes) > _size(file):
            raise _Refused("storages that are larger than the file")
        storages = {key: archive.read(f"{folder}data/{key}") for key in stored}
        return saved, storages, ">" if big else "<"


def _tensors_of(saved: Any) -> dict[str, _Tensor]:
    """Returns the tensors of a state dict, alone or under `state_dict` or `model`, by name."""
    for name in ("state_dict", "model"):
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
    if not isinstance(saved, dict):
        raise _Refused(f"a {type(saved).__name__} where a state dict was expected")
    tensors = {str(name): value for name, value in saved.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise _Refused("a state dict without tensors")
    return tensors


def _arrays(
    tensors: Mapping[str, _Tensor], storages: Mapping[str, bytes], byte_order: str
) -> Iterator[tuple[str, np.ndarray]]:
    stored = sum(map(len, storages.values()))
    needed = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values())
    if needed > _LARGEST_EXPANSION * stored:
        raise _Refused(f"tensors of {needed} bytes in storages of {stored}")
    flat = {}
    for storage in {tensor.storage for tensor in tensors.values()}:
        size = storage.dtype.itemsize
        if len(storages[storage.key]) < storage.count * size:
            raise EOFError(f"storage {storage.key} is truncated")
        # NumPy cannot swap the bytes of bfloat16: they are swapped as an integer's.
        integers = np.frombuffer(storages[storage.key], np.dtype(f"{byte_order}u{size}"))
        flat[storage] = integers.astype(f"=u{size}", copy=False).view(storage.dtype)
    for name, tensor in tensors.items():
        strides = [stride * tensor.storage.dtype.itemsize for stride in tensor.strides]
        start = flat[tensor.storage][tensor.offset :]
        view = np.lib.stride_tricks.as_strided(start, tensor.shape, strides, writeable=False)
        yield name, np.array(view)


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict that `torch.save` wrote.

    Args:
        path: a `.pth` or `.pt` file of a state dict, alone or under `state_dict` or `model`.

    Returns:
        Tensors by name.

    Raises:
        UserError: the file cannot be read, is truncated, or holds anything but tensors. The message
            names what it holds; none of it has run.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            saved, storages, byte_order = (_zip_layout if is_zip else _old_layout)(file)
        return dict(_arrays(_tensors_of(saved), storages, byte_order))
    except _Refused as refused:
        raise UserError(
            f"{path}: refused because it holds {refused}; only the tensors of a state dict are "
            "read. Save `model.state_dict()` again, or use a .safetensors file."
        ) from refused
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable.") from error
    # Errors of damaged pickles and archives. zipfile raises RuntimeError for an encrypted archive,
    # NotImplementedError for an unknown version or compression.
    except (
        EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
        OverflowError, NotImplementedError, RuntimeError, zipfile.BadZipFile, struct.error,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: not a PyTorch checkpoint, or truncated ({error}); download it again."
        ) from error
