"""An open weights file: names, dtypes and shapes of all tensors, and their values on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from vae_lab.errors import MalformedFile, UnreadableFile
from vae_lab.text import quoted, sized

from .dtypes import itemsize
from .limits import Limits
from .source import ByteSource, PrefetchingSource

__all__ = ["Contents", "Extent", "StoredTensor", "TensorInfo", "WeightFile", "check_shape", "contiguous_stride"]

# Read in pieces of this size, so that at most this much is in memory twice.
_PIECE = 16 * 2**20
_SMALL_PIECE = 4 * 2**20  # of bytes that are only passed on


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of a tensor in a file."""

    name: str
    dtype: torch.dtype
    """``torch.uint8`` for types that the installed torch does not have; see ``flaw``."""
    shape: tuple[int, ...]
    flaw: str | None = None
    """Why ``read`` refuses this tensor; None for every tensor that can be read."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the values in memory."""
        return self.numel * itemsize(self.dtype)


class Extent:
    """A run of ``nbytes`` bytes in the file, whose position is looked up on first use.

    Archives have a small header before each run. Reading it only for the tensors that are read means one request,
    not thousands, to open a file with thousands of tensors.
    """

    def __init__(self, nbytes: int, locate: Callable[[], int]) -> None:
        self.nbytes = nbytes
        self._locate = locate
        self._position: int | None = None

    @classmethod
    def at(cls, position: int, nbytes: int) -> Extent:
        """An extent at a known position."""
        return cls(nbytes, lambda: position)

    def position(self) -> int:
        """Offset of the first byte in the file."""
        if self._position is None:
            self._position = self._locate()
        return self._position


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a strided view of an extent. Parsers guarantee that the view lies within the extent."""

    info: TensorInfo
    extent: Extent
    start: int
    """Offset of the first element in the extent, in bytes."""
    stride: tuple[int, ...]
    """In elements, never negative."""

    @property
    def contiguous(self) -> bool:
        """Whether the elements are in C order without gaps."""
        expected = contiguous_stride(self.info.shape)
        return self.info.numel == 0 or all(
            length == 1 or step == contiguous_step
            for length, step, contiguous_step in zip(self.info.shape, self.stride, expected, strict=True)
        )

    @property
    def span(self) -> int:
        """Number of elements from the first to the last in the file, including gaps."""
        if self.info.numel == 0:
            return 0
        return 1 + sum((length - 1) * step for length, step in zip(self.info.shape, self.stride, strict=True))


@dataclass(frozen=True)
class Contents:
    """The result of parsing a file."""

    container: str
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str] = field(default_factory=dict)


class WeightFile:
    """An open weights file. Use it as a context manager, or call ``close``.

    All errors about the file are subclasses of ``FileError``. Reading is thread-safe if the source is.
    """

    def __init__(self, source: ByteSource, contents: Contents, limits: Limits) -> None:
        self._source = source
        self._stored = contents.tensors
        self._limits = limits
        self.container = contents.container
        self.metadata: Mapping[str, str] = MappingProxyType(contents.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: stored.info for name, stored in contents.tensors.items()}
        )

    @property
    def path(self) -> str:
        """Path or URL, as shown to the user."""
        return self._source.name

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Bytes read so far."""
        return self._source.bytes_read

    def read(self, name: str) -> torch.Tensor:
        """Return a copy of a tensor, contiguous and in the file's dtype.

        Raises KeyError if there is none of that name; MalformedFile with the tensor's ``flaw`` if it cannot be read.
        """
        stored = self._stored[name]
        if stored.contiguous:
            return self._elements(stored, 0, stored.info.numel).reshape(stored.info.shape)
        # A view can repeat its values, or select few from a wide span: both need memory.
        self._check_memory(stored, stored.info.nbytes)
        flat = self._elements(stored, 0, stored.span)
        return flat.as_strided(stored.info.shape, stored.stride).clone(memory_format=torch.contiguous_format)

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor in C order, in the file's dtype, in pieces of at most 4 MiB if it is contiguous there.

        Raises what ``read`` raises.
        """
        stored = self._stored[name]
        self._check_readable(stored.info)
        if not stored.contiguous:
            yield self.read(name).reshape(-1).view(torch.uint8).numpy().tobytes()
            return
        nbytes, start = stored.info.nbytes, (stored.extent.position() + stored.start) if stored.info.numel else 0
        for done in range(0, nbytes, _SMALL_PIECE):
            yield self._source.read_at(start + done, min(_SMALL_PIECE, nbytes - done))

    def position(self, name: str) -> int | None:
        """Offset of a tensor's first byte in the file; None if it is not contiguous there.

        Raises KeyError if there is none of that name.
        """
        stored = self._stored[name]
        return stored.extent.position() + stored.start if stored.contiguous else None

    def read_flat(self, name: str, start: int, count: int) -> torch.Tensor:
        """Return a copy of the elements [start, start + count) in C order, one-dimensional.

        Reads only these bytes, unless the tensor is not contiguous in the file. Raises IndexError for elements that
        the tensor does not have, otherwise as ``read``.
        """
        stored = self._stored[name]
        self._check_run(stored, start, count)
        if stored.contiguous:
            return self._elements(stored, start, count)
        return self.read(name).flatten()[start : start + count].clone()

    def read_runs(self, name: str, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return the concatenated elements of several runs, each (start, count) as in ``read_flat``.

        Raises what ``read_flat`` raises. A tensor that is not contiguous in the file is read once, not per run.
        """
        stored = self._stored[name]
        for start, count in runs:
            self._check_run(stored, start, count)
        total = sum(count for _, count in runs)
        self._check_memory(stored, total * itemsize(stored.info.dtype))
        flat = None if stored.contiguous else self.read(name).flatten()
        if flat is None and not stored.info.flaw and isinstance(self._source, PrefetchingSource):
            begin, width = stored.extent.position() + stored.start, itemsize(stored.info.dtype)
            self._source.prefetch([(begin + start * width, count * width) for start, count in runs])
        result = torch.empty(total, dtype=stored.info.dtype)
        position = 0
        for start, count in runs:
            piece = self._elements(stored, start, count) if flat is None else flat[start : start + count]
            result[position : position + count] = piece
            position += count
        return result

    def close(self) -> None:
        """Close the file. Tensors that were read stay valid."""
        self._source.close()

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<WeightFile {quoted(self.path)}: {self.container}, {len(self.tensors)} tensors>"

    @staticmethod
    def _check_run(stored: StoredTensor, start: int, count: int) -> None:
        name, numel = quoted(stored.info.name), stored.info.numel
        if start < 0 or count < 0 or start + count > numel:
            raise IndexError(f"elements {start} to {start + count} of {name}, which has {numel}")

    def _elements(self, stored: StoredTensor, first: int, count: int) -> torch.Tensor:
        """Read ``count`` elements in the file's order."""
        info = stored.info
        self._check_readable(info)
        if count == 0:
            return torch.empty(0, dtype=info.dtype)
        width = itemsize(info.dtype)
        nbytes = count * width
        self._check_memory(stored, nbytes)
        buffer = self._buffer(stored.extent.position() + stored.start + first * width, nbytes)
        return torch.frombuffer(buffer, dtype=info.dtype)

    def _check_readable(self, info: TensorInfo) -> None:
        if info.flaw:
            raise MalformedFile(self.path, f"tensor {quoted(info.name)} cannot be read: {info.flaw}")

    def _check_memory(self, stored: StoredTensor, nbytes: int) -> None:
        if nbytes > self._limits.tensor_bytes:
            name, limit = quoted(stored.info.name), sized(self._limits.tensor_bytes)
            raise MalformedFile(
                self.path, f"reading tensor {name} needs {sized(nbytes)} of memory; the limit is {limit}"
            )

    def _buffer(self, position: int, nbytes: int) -> bytearray:
        try:
            buffer = bytearray(nbytes)
        except MemoryError as error:
            raise UnreadableFile(self.path, f"not enough memory for a tensor of {sized(nbytes)}") from error
        view = memoryview(buffer)
        for done in range(0, nbytes, _PIECE):
            piece = min(_PIECE, nbytes - done)
            view[done : done + piece] = self._source.read_at(position + done, piece)
        return buffer


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a C-ordered tensor, in elements."""
    stride = []
    step = 1
    for length in reversed(shape):
        stride.append(step)
        step *= max(length, 1)
    return tuple(reversed(stride))


def check_shape(shape: tuple[int, ...], limits: Limits) -> None:
    """Raise ValueError with the reason if torch cannot represent a tensor of this shape."""
    if len(shape) > limits.dimensions:
        raise ValueError(f"{len(shape)} dimensions; the limit is {limits.dimensions}")
    if any(length < 0 for length in shape):
        raise ValueError(f"negative length in the shape {shape}")
    # Lengths of 0 count as 1: torch multiplies the others to compute strides, and would overflow.
    if math.prod(max(length, 1) for length in shape) > limits.elements:
        raise ValueError(f"overflow: the shape {quoted(shape)} has too many elements")
