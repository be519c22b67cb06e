"""Reads the tensors of an old-format PyTorch `.pth` file into NumPy, without PyTorch and without running code.

A pickle can call any function of any module. This reader admits three kinds of globals: the ordered dictionary, the
function that rebuilds a tensor, and the names of the storage types. Anything else is refused before it is imported.

The old format (before PyTorch 1.6) is five pickles after each other - magic number, protocol version, system,
tensors, storage keys - and then the storages in the order of their keys: 8 bytes of element count, then the elements.
"""

import io
import math
import pickle  # only under `_TensorsOnly`, which refuses every global that is not part of a tensor
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kadence import _checks

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_COPIES = 8

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


def read_pth(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Tensors of an old-format `.pth` file, by name.

    The file is not trusted: it may hold tensors and nothing else, no code of it is run, and every size in it is
    checked against the bytes that are there. (Tuples nested a million deep may still end the process.) PyTorch is not
    needed.

    Args:
        path: The file: a dictionary of tensors (a state dict), saved by PyTorch before 1.6 or with
            `torch.save(..., _use_new_zipfile_serialization=False)`.

    Returns:
        Name of the tensor -> array of its shape and dtype, a copy, in the order of the file.

    Raises:
        ValueError: If the file asks for a global that is not part of a tensor, is truncated or damaged, has the
            newer zip format, or holds anything else than named tensors.
        OSError: If the file cannot be read.

    Example:
        >>> weights = read_pth("efficientnet-lite0-57934424.pth")
        >>> weights["_conv_stem.weight"].shape
        (32, 3, 3, 3)
    """
    data = Path(path).read_bytes()
    try:
        return _read(data)
    except _Refused as refusal:
        raise ValueError(_checks.sentence("path", refusal.rule, str(path), refusal.remedy)) from None


class _Refused(Exception):  # noqa: N818 - carries the words of the ValueError, never leaves this file
    def __init__(self, rule: str, remedy: str) -> None:
        super().__init__(rule, remedy)
        self.rule, self.remedy = rule, remedy


def _damaged(what: str) -> _Refused:
    return _Refused("be a whole, undamaged .pth file", f"{what} Get the file again.")


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _TensorsOnly(pickle.Unpickler):
    """Unpickler whose globals are tensors: returns descriptions, as the data comes later in the file."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilder()
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        raise _Refused(
            "be a file of tensors and nothing else",
            f"It asks for the global '{module_name}.{global_name}', which was refused and not run.",
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, length, view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or not isinstance(key, str) or view is not None:
            raise _damaged("It describes a storage in an unknown way.")
        return _Storage(key, dtype, _count(length))


def _rebuilder() -> Callable[..., _Tensor]:
    # A new function for each file: a pickle can set attributes of what it was given, and that must not outlive it.
    def rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_grad_and_hooks: Any) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    return rebuild


def _read(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(b"PK"):
        raise _Refused(
            "be a .pth file in the old format, of PyTorch before 1.6",
            "This one is a zip file. Save it again with torch.save(..., _use_new_zipfile_serialization=False).",
        )
    file = io.BytesIO(data)
    if not data.startswith(b"\x80") or _unpickle(file) != _MAGIC:
        raise _Refused("be a .pth file, as torch.save writes it", "The file does not begin with the number of one.")
    protocol, system = _unpickle(file), _unpickle(file)
    if protocol != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _damaged("It is not of protocol 1001 and little-endian.")
    tensors, keys = _unpickle(file), _unpickle(file)
    if not isinstance(tensors, dict):
        raise _Refused("be a dictionary of tensors by name", f"It holds a {type(tensors).__name__}.")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _damaged("It has no list of its storages.")
    described = dict(dict.items(tensors))
    for name, tensor in described.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
            entry = f"{type(name).__name__}: {type(tensor).__name__}"
            raise _Refused("be a dictionary of tensors by name", f"It has an entry of types {entry}.")
    storages = _read_storages(data, file.tell(), keys, {tensor.storage for tensor in described.values()})
    views = {name: _view(name, tensor, storages) for name, tensor in described.items()}
    # Tied weights share a storage; a thousand names of one would be a small file that asks for any amount of memory.
    if sum(view.nbytes for view in views.values()) > _MOST_COPIES * len(data):
        raise _damaged(f"Its tensors are more than {_MOST_COPIES} times as large as the file.")
    return {name: view.copy() for name, view in views.items()}


def _unpickle(file: io.BytesIO) -> Any:
    start = file.tell()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            # The unpickler makes room for every memo below the one it stores: a few bytes could ask for 64 GB.
            if opcode.name.endswith("PUT") and int(argument or 0) > file.getbuffer().nbytes:
                raise _damaged("Its pickle numbers more objects than it has bytes.")
        file.seek(start)
        return _TensorsOnly(file).load()
    except _Refused:
        raise
    except Exception as error:  # the unpickler meets damaged bytes with errors of a dozen types
        raise _damaged(f"Its pickle cannot be read ({type(error).__name__}).") from None


def _read_storages(data: bytes, start: int, keys: list[str], used: set[_Storage]) -> dict[_Storage, np.ndarray]:
    by_key = {storage.key: storage for storage in used}
    if len(by_key) != len(used) or sorted(by_key) != sorted(keys):
        raise _damaged("Its tensors and its storages do not belong together.")
    storages: dict[_Storage, np.ndarray] = {}
    for key in keys:
        storage = by_key[key]
        end = start + 8 + storage.length * np.dtype(storage.dtype).itemsize
        if end > len(data):
            raise _damaged(f"It ends at byte {len(data)}, inside or before a storage that ends at byte {end}.")
        if int.from_bytes(data[start : start + 8], "little") != storage.length:
            raise _damaged(f"A storage of {storage.length} elements says another length at byte {start}.")
        storages[storage] = np.frombuffer(data, storage.dtype, storage.length, start + 8)
        start = end
    if start != len(data):
        raise _damaged(f"Its storages end at byte {start}, and the file at byte {len(data)}.")
    return storages


def _view(name: str, tensor: _Tensor, storages: dict[_Storage, np.ndarray]) -> np.ndarray:
    offset, shape, strides = _count(tensor.offset), _counts(tensor.shape), _counts(tensor.strides)
    flat = storages[tensor.storage]
    empty = 0 in shape
    # More elements than the storage has would be overlap, by which a small file can ask for any amount of memory.
    fits = math.prod(max(size, 1) for size in shape) <= (2**31 if empty else flat.size)
    if not fits or len(shape) != len(strides) or len(shape) > 32:
        raise _damaged(f"The shape of the tensor {name:.60} does not fit its storage of {flat.size} elements.")
    if empty:
        return np.empty(shape, flat.dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= flat.size:
        raise _damaged(f"The tensor {name:.60} reaches outside of its storage of {flat.size} elements.")
    steps = tuple(stride * flat.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _damaged(f"It has a {type(value).__name__} where a count >= 0 belongs.")
    return value


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple):
        raise _damaged(f"It has a {type(values).__name__} where a shape belongs.")
    return tuple(_count(value) for value in values)
