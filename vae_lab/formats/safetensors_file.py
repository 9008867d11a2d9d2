"""Parses safetensors: an 8-byte length, a JSON header, and the bytes of all tensors, without gaps."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass

import torch

from vae_lab.errors import MalformedFile, UnreadableFile
from vae_lab.text import one_line, quoted, sized

from .dtypes import SAFETENSORS_TYPES, ElementType
from .limits import Limits
from .source import ByteSource
from .weight_file import Contents, Extent, StoredTensor, TensorInfo, check_shape, contiguous_stride

__all__ = ["LENGTH_BYTES", "parse_safetensors"]

LENGTH_BYTES = 8

_SURROGATE = re.compile("[\ud800-\udfff]")
# A string, terminated or not, or a character that begins a value.
_JSON_TOKEN = re.compile(rb'"[^"]*(?:"|\Z)|[\[{,]')


@dataclass(frozen=True)
class _Entry:
    """A tensor in the header. Each field is valid by itself."""

    name: str
    type: ElementType
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_safetensors(source: ByteSource, limits: Limits) -> Contents:
    """Read the header. Accepts what the reference implementation accepts, and nothing more.

    Raises UnreadableFile if the file is shorter than its header declares; MalformedFile if it contradicts itself.
    """
    header_length = _header_length(source, limits)
    header = source.read_at(LENGTH_BYTES, header_length)
    try:
        table = _parse_json(header, limits)
        metadata = _metadata(table.pop("__metadata__", {}))
        entries = _entries(table, limits)
        data_length = _check_layout(entries)
    except RecursionError as error:
        raise MalformedFile(source.name, "safetensors header: JSON nested too deeply") from error
    except ValueError as error:
        raise MalformedFile(source.name, f"safetensors header: {one_line(error)}") from error
    data_start = LENGTH_BYTES + header_length
    _check_size(source, data_start + data_length)
    tensors = {entry.name: _stored(entry, data_start) for entry in entries}
    return Contents("safetensors", tensors, metadata)


def _header_length(source: ByteSource, limits: Limits) -> int:
    if source.size < LENGTH_BYTES:
        raise UnreadableFile(source.name, f"truncated: {source.size} bytes are too short for a safetensors header")
    (length,) = struct.unpack("<Q", source.read_at(0, LENGTH_BYTES))
    if length > limits.header_bytes:
        limit = sized(limits.header_bytes)
        raise MalformedFile(source.name, f"the safetensors header has {sized(length)}; the limit is {limit}")
    if LENGTH_BYTES + length > source.size:
        raise UnreadableFile(
            source.name,
            f"truncated: the header claims {length} bytes, but the file has {source.size} (incomplete download?)",
        )
    return length


def _parse_json(header: bytes, limits: Limits) -> dict[str, object]:
    text = header.decode("utf-8")
    # The reference implementation accepts leading whitespace but no byte order mark, like json.loads.
    _check_values(header, limits)
    parsed = json.loads(
        text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_fraction, parse_constant=_no_constant
    )
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return parsed


def _check_values(header: bytes, limits: Limits) -> None:
    """Count the JSON values before parsing: 100 MB of ``[],[],`` would become gigabytes of lists."""
    plain = header.replace(b"\\\\", b"").replace(b'\\"', b"")
    for count, _ in enumerate(_JSON_TOKEN.finditer(plain)):
        if count > limits.header_values:
            raise ValueError(f"more than {limits.header_values} JSON values")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"the name {quoted(name)} occurs twice")
        table[name] = value
    return table


def _integer(digits: str) -> int:
    # 64 bits need 20 digits. Some Python versions convert longer numbers in quadratic time.
    if len(digits) > 20:
        raise ValueError("overflow: a number of more than 20 digits")
    return int(digits)


def _fraction(digits: str) -> float:
    if len(digits) > 40:
        raise ValueError("a number of more than 40 digits")
    return float(digits)


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("__metadata__ is not an object of strings")
    return value


def _entries(table: dict[str, object], limits: Limits) -> list[_Entry]:
    if len(table) > limits.tensors:
        raise ValueError(f"{len(table)} tensors; the limit is {limits.tensors}")
    return [_entry(name, value, limits) for name, value in table.items()]


def _entry(name: str, value: object, limits: Limits) -> _Entry:
    if len(name) > limits.name_length:
        raise ValueError(f"a tensor's name has {len(name)} characters; the limit is {limits.name_length}")
    if _SURROGATE.search(name):
        raise ValueError(f"the tensor name {quoted(name)} is not valid Unicode")
    try:
        if not isinstance(value, dict):
            raise ValueError("not an object")  # noqa: TRY301 - gets the tensor's name below
        return _parse_entry(name, value, limits)
    except ValueError as error:
        raise ValueError(f"tensor {quoted(name)}: {error}") from error


def _parse_entry(name: str, value: dict[str, object], limits: Limits) -> _Entry:
    type_name = value.get("dtype")
    element = SAFETENSORS_TYPES.get(type_name) if isinstance(type_name, str) else None
    if element is None:
        raise ValueError(f"unknown dtype {quoted(type_name)}")
    shape = _integers(value.get("shape"), "shape")
    check_shape(shape, limits)
    offsets = _integers(value.get("data_offsets"), "data_offsets")
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise ValueError(f"data_offsets are {quoted(list(offsets))}, not a start and an end")
    return _Entry(name, element, shape, *offsets)


def _integers(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ValueError(f"{what} is missing or not a list of integers")
    return tuple(value)


def _check_layout(entries: list[_Entry]) -> int:
    """Check that the tensors fill the data section without overlaps or gaps. Returns its length."""
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin < end:
            raise ValueError(f"tensor {quoted(entry.name)} overlaps the one before it")
        if entry.begin > end:
            raise ValueError(f"a gap of {entry.begin - end} bytes before tensor {quoted(entry.name)}")
        bits = entry.type.bits
        for length in entry.shape:
            bits *= length
        if bits != 8 * (entry.end - entry.begin):
            raise ValueError(
                f"tensor {quoted(entry.name)}: {entry.type.name} {quoted(list(entry.shape))} "
                f"needs {bits / 8:g} bytes, data_offsets give {entry.end - entry.begin}"
            )
        end = entry.end
    return end


def _check_size(source: ByteSource, expected: int) -> None:
    if source.size < expected:
        raise UnreadableFile(
            source.name, f"truncated: {expected} bytes expected, but the file has {source.size} (incomplete download?)"
        )
    if source.size > expected:
        raise MalformedFile(source.name, f"{source.size - expected} bytes follow after the last tensor")


def _stored(entry: _Entry, data_start: int) -> StoredTensor:
    dtype = entry.type.dtype
    flaw = None if dtype else f"torch {torch.__version__} does not support its type {entry.type.name}"
    info = TensorInfo(entry.name, dtype or torch.uint8, entry.shape, flaw)
    extent = Extent.at(data_start + entry.begin, entry.end - entry.begin)
    return StoredTensor(info, extent, 0, contiguous_stride(entry.shape))
