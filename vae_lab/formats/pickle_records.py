"""Inert records for the objects in a pickle, and the few calls that produce tensors.

Names from the file are only looked up in tables of this package. Builders raise ValueError with the reason if their
arguments are not valid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from vae_lab.text import quoted, sized

from .dtypes import STORAGE_TYPES, TORCH_TYPES, itemsize
from .limits import Limits
from .weight_file import check_shape, contiguous_stride

__all__ = ["Opaque", "StorageRef", "Symbol", "TensorRef", "as_key", "build_storage", "call"]


class Symbol(NamedTuple):
    """A global that the pickle names. It is never imported."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


_MAX_BYTES_KEY = 128

# Records compare by identity (eq=False): a pickle can make them contain themselves.


@dataclass(frozen=True, eq=False)
class Opaque:
    """Any other object. Items assigned to it are stored, because it may be a subclass of dict."""

    symbol: Symbol | None = None
    items: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class StorageRef:
    """The bytes of one or more tensors, which are outside the pickle."""

    key: str
    type_name: str
    dtype: torch.dtype | None
    itemsize: int
    nbytes: int
    """Of the whole storage."""
    view_start: int
    """Start of the part that this reference covers, in bytes. Only the legacy format has such views."""
    view_nbytes: int


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A strided view that lies within its storage."""

    storage: StorageRef
    dtype: torch.dtype
    start: int
    """Offset of the first element in the whole storage, in bytes."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    flaw: str | None = None


def as_key(value: object) -> str | None:
    """Return a dict's key as a string, or None if its type is not accepted.

    Strings, because Python protects their hashes, unlike those of numbers, against deliberate collisions.
    """
    if type(value) is str:
        return value
    if type(value) is bytes:  # decoding copies at each use, so it must be short
        return value.decode("latin-1") if len(value) <= _MAX_BYTES_KEY else None
    if type(value) is int:
        return str(value) if -(2**64) < value < 2**64 else None
    if value is None or type(value) in (bool, float):
        return str(value)
    return None


def call(function: object, args: tuple[Any, ...], limits: Limits) -> object:
    """Return a record for the result of a call: a tensor, if the function is known to return one."""
    if not isinstance(function, Symbol):
        return Opaque()
    builder = _BUILDERS.get(function.path)
    return builder(args, limits) if builder else Opaque(function)


def build_storage(args: object) -> StorageRef:
    """Return the record for a persistent id: ("storage", class, key, location, elements[, view])."""
    if not isinstance(args, tuple) or len(args) not in (5, 6):
        raise ValueError("a persistent id that is not a storage")
    _, storage_class, key, _, count, *rest = args
    key = as_key(key)
    if not isinstance(storage_class, Symbol) or key is None:
        raise ValueError("a storage without a class or a key")
    element = STORAGE_TYPES.get(storage_class.name)
    if element is None:
        raise ValueError(f"unknown storage class {quoted(storage_class.path)}")
    width = element.bits // 8
    nbytes = _count(count, "a storage's size") * width
    start, view_nbytes = 0, nbytes
    if rest and rest[0] is not None:
        if not isinstance(rest[0], tuple) or len(rest[0]) != 3:
            raise ValueError("a malformed view of a storage")
        start = _count(rest[0][1], "a view's offset") * width
        view_nbytes = _count(rest[0][2], "a view's size") * width
        if start + view_nbytes > nbytes:
            raise ValueError(f"a view beyond the end of its storage {quoted(key)}")
    return StorageRef(key, storage_class.name, element.dtype, width, nbytes, start, view_nbytes)


def _count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{what} is {quoted(value) if type(value) is int else 'not a number'}")
    return value


def _numbers(value: object, what: str, limits: Limits) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"a tensor's {what} is not a tuple")
    if len(value) > limits.dimensions:
        raise ValueError(f"a tensor with {len(value)} dimensions; the limit is {limits.dimensions}")
    for item in value:
        _count(item, f"a number in a tensor's {what}")
    return value


def _tensor(args: tuple[Any, ...], limits: Limits, dtype: object = None, flags: object = None) -> TensorRef:
    """Build from (storage, offset, size, stride, …), the first arguments in all versions."""
    if len(args) < 4 or not isinstance(args[0], StorageRef):
        raise ValueError("a tensor without a storage")
    storage: StorageRef = args[0]
    offset = _count(args[1], "a tensor's offset")
    shape = _numbers(args[2], "shape", limits)
    stride = _numbers(args[3], "strides", limits)
    check_shape(shape, limits)
    if len(shape) != len(stride):
        raise ValueError(f"a tensor of shape {shape} with {len(stride)} strides")
    dtype, flaw = _element_type(storage, dtype)
    width = itemsize(dtype) if flaw is None else storage.itemsize
    _check_bounds(storage, offset, shape, stride, width, limits)
    if isinstance(flags, dict) and any(flags.values()):
        flaw = flaw or f"it is stored {' and '.join(sorted(map(quoted, flags)))}, which is not supported"
    return TensorRef(storage, dtype, storage.view_start + offset * width, shape, stride, flaw)


def _element_type(storage: StorageRef, override: object) -> tuple[torch.dtype, str | None]:
    name, dtype = storage.type_name, storage.dtype
    if override is not None:
        name = override.name if isinstance(override, Symbol) else "unknown"
        element = TORCH_TYPES.get(name)
        dtype = element.dtype if element else None
    if dtype is None:
        return torch.uint8, f"torch {torch.__version__} does not support its type {quoted(name)}"
    return dtype, None


def _check_bounds(
    storage: StorageRef, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], width: int, limits: Limits
) -> None:
    if 0 in shape:
        return
    last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    if (last + 1) * width > storage.view_nbytes:
        raise ValueError(
            f"a tensor of shape {shape}, strides {stride} and offset {offset} exceeds its storage "
            f"{quoted(storage.key)} of {storage.view_nbytes} bytes"
        )
    nbytes = width
    for length in shape:
        nbytes *= length
    if nbytes > max(storage.view_nbytes, limits.expanded_bytes):
        raise ValueError(f"a tensor that expands {storage.view_nbytes} bytes to {sized(nbytes)}")


def _tensor_v1(args: tuple[Any, ...], limits: Limits) -> TensorRef:
    # Before torch 0.4, the strides could be omitted.
    if len(args) == 3:
        shape = _numbers(args[2], "shape", limits)
        args = (*args, contiguous_stride(shape))
    return _tensor(args, limits)


def _tensor_v2(args: tuple[Any, ...], limits: Limits) -> TensorRef:
    return _tensor(args, limits, flags=args[6] if len(args) > 6 else None)


def _tensor_v3(args: tuple[Any, ...], limits: Limits) -> TensorRef:
    if len(args) < 7:
        raise ValueError("a tensor without a dtype")
    return _tensor(args, limits, dtype=args[6], flags=args[7] if len(args) > 7 else None)


def _first(args: tuple[Any, ...], _: Limits) -> object:
    if not args:
        raise ValueError("a call without its argument")
    return args[0]


def _from_type(args: tuple[Any, ...], limits: Limits) -> object:
    # (function, class, its arguments, state): a tensor subclass, which is read as a plain tensor.
    if len(args) < 3 or not isinstance(args[2], tuple):
        raise ValueError("a tensor subclass without arguments")
    if isinstance(args[0], Symbol) and args[0].path in _FROM_TYPE:
        raise ValueError("nested tensor subclasses")
    return call(args[0], args[2], limits)


def _mapping(args: tuple[Any, ...], _: Limits) -> dict[str, Any]:
    # Python 3 adds the items later; Python 2 wrote OrderedDict([[key, value], …]).
    if len(args) != 1 or not isinstance(args[0], list):
        return {}
    pairs = args[0]
    table = {}
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError("an ordered dict with an entry that is not a pair")
        key = as_key(pair[0])
        if key is not None:
            table[key] = pair[1]
    # Nothing else refers to this list in a real file. In a malicious one, the same list could be turned into a dict
    # a million times.
    pairs.clear()
    return table


_FROM_TYPE = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type")

_BUILDERS: dict[str, Callable[[tuple[Any, ...], Limits], object]] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": _first,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    **dict.fromkeys(_FROM_TYPE, _from_type),
}
