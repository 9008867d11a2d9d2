"""The formats' names for element types, and the corresponding torch dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

__all__ = ["SAFETENSORS_TYPES", "STORAGE_TYPES", "TORCH_TYPES", "ElementType", "itemsize"]


@dataclass(frozen=True)
class ElementType:
    """One element type of a file format. ``dtype`` is None if the installed torch does not have it."""

    name: str
    bits: int
    dtype: torch.dtype | None


@cache
def itemsize(dtype: torch.dtype) -> int:
    """Bytes per element (``dtype.itemsize`` needs torch 2.1)."""
    return torch.empty(0, dtype=dtype).element_size()


def _types(table: dict[str, tuple[int, str | None]]) -> dict[str, ElementType]:
    return {
        name: ElementType(name, bits, getattr(torch, attribute, None) if attribute else None)
        for name, (bits, attribute) in table.items()
    }


# F4 and F6 pack several elements into a byte, which torch does not support: they are listed, not read.
SAFETENSORS_TYPES = _types(
    {
        "BOOL": (8, "bool"),
        "F4": (4, None),
        "F6_E2M3": (6, None),
        "F6_E3M2": (6, None),
        "U8": (8, "uint8"),
        "I8": (8, "int8"),
        "F8_E5M2": (8, "float8_e5m2"),
        "F8_E4M3": (8, "float8_e4m3fn"),
        "F8_E8M0": (8, "float8_e8m0fnu"),
        "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
        "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
        "I16": (16, "int16"),
        "U16": (16, "uint16"),
        "F16": (16, "float16"),
        "BF16": (16, "bfloat16"),
        "I32": (32, "int32"),
        "U32": (32, "uint32"),
        "F32": (32, "float32"),
        "C64": (64, "complex64"),
        "F64": (64, "float64"),
        "I64": (64, "int64"),
        "U64": (64, "uint64"),
    }
)

# The classes of torch storages. Quantised ones need a scale and a zero point: they are listed, not read.
STORAGE_TYPES = _types(
    {
        "DoubleStorage": (64, "float64"),
        "FloatStorage": (32, "float32"),
        "HalfStorage": (16, "float16"),
        "BFloat16Storage": (16, "bfloat16"),
        "LongStorage": (64, "int64"),
        "IntStorage": (32, "int32"),
        "ShortStorage": (16, "int16"),
        "CharStorage": (8, "int8"),
        "ByteStorage": (8, "uint8"),
        "BoolStorage": (8, "bool"),
        "ComplexFloatStorage": (64, "complex64"),
        "ComplexDoubleStorage": (128, "complex128"),
        "QInt8Storage": (8, None),
        "QUInt8Storage": (8, None),
        "QUInt4x2Storage": (8, None),
        "QUInt2x4Storage": (8, None),
        "QInt32Storage": (32, None),
        "UntypedStorage": (8, "uint8"),
        "_UntypedStorage": (8, "uint8"),
    }
)

# What a pickle may name as ``torch.<dtype>``: a fixed list, so that no name from a file is looked up in torch.
TORCH_TYPES = _types(
    {
        **{name: (8, name) for name in ("uint8", "int8", "bool")},
        **{name: (8, name) for name in ("float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu")},
        **{name: (8, name) for name in ("float8_e4m3fnuz", "float8_e5m2fnuz")},
        **{name: (16, name) for name in ("float16", "bfloat16", "int16", "uint16")},
        **{name: (32, name) for name in ("float32", "int32", "uint32")},
        **{name: (64, name) for name in ("float64", "int64", "uint64", "complex64")},
        "complex128": (128, "complex128"),
    }
)
