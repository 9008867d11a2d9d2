"""Samples a VAE's weights: few enough to read in milliseconds, enough to distinguish VAEs.

The tensors' canonical names and shapes determine which weights are sampled, so the sketches of two files with the same
structure contain the same weights, independently of container, layout and dtype.

Only the weights of convolutions are sampled. Norms start at 1 in every training, so with them unrelated VAEs would look
similar.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_lab.autoencoders.autoencoder import VaeFile

__all__ = [
    "RECAST",
    "RELATIVE",
    "UNRELATED",
    "Relation",
    "Sketch",
    "cosine",
    "distance",
    "distance_by_tensor",
    "relation",
    "sketch_of_file",
    "sketch_of_state",
]

RECAST = 0.003
"""Distance below which two VAEs have the same weights: rounding to fp16 adds 0.0003, to bf16 0.0017."""
RELATIVE = 0.9
"""Cosine above which one VAE is a fine-tune of the other, or both of a third one."""
UNRELATED = 0.3
"""Cosine below which two VAEs were trained independently; merging them gives a grey VAE."""

Relation = Literal["recast", "relative", "distant", "unrelated"]

_VERSION = (
    2  # increase when other weights are sampled, or stored otherwise; sketches of different versions cannot be compared
)
_INTERVAL = 1000  # of large tensors, one weight in 1000
_MIN_SAMPLES = 256  # per tensor, or all its weights if it has fewer
_RUN = 128  # weights read in one piece; reading time depends on the number of pieces, not of bytes
_LARGEST_HALF = torch.finfo(torch.float16).max

_Runs = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Sketch:
    """A fixed sample of a VAE's weights.

    Attributes:
        structure: hash over the names and shapes of all convolutions; only sketches of one structure are comparable.
        values: [N] float32, the weights as stored, including NaN; clamped to fp16's range.
        spans: canonical tensor name, and start and end of its weights in ``values``.
        totals: for each span, the number of weights in the whole tensor.
    """

    structure: str
    values: npt.NDArray[np.float32]
    spans: tuple[tuple[str, int, int], ...]
    totals: tuple[int, ...]

    @property
    def finite(self) -> bool:
        """Whether no sampled weight is NaN. Infinite ones are clamped to the largest fp16 value."""
        return bool(np.isfinite(self.values).all())

    @property
    def factors(self) -> npt.NDArray[np.float64]:
        """[N] factors for ``values``, so that each tensor counts as if all its weights were sampled.

        Lengths and angles are then estimates for all convolutions. Without the factors, the few large and densely
        sampled weights of the first and last convolutions would dominate.
        """
        counts = [stop - start for _, start, stop in self.spans]
        roots = [math.sqrt(total / count) for total, count in zip(self.totals, counts, strict=True)]
        return np.repeat(np.array(roots, np.float64), np.array(counts, np.int64))

    @property
    def scaled(self) -> npt.NDArray[np.float64]:
        """[N] ``values`` times ``factors``."""
        return self.values * self.factors

    @property
    def norm(self) -> float:
        """Estimated Euclidean norm of all convolutions' weights."""
        return float(np.linalg.norm(self.scaled))

    @property
    def coarse(self) -> bool:
        """Whether the weights only have the 8 significant bits of bf16, because they were bf16 at some point."""
        return bool((self.values.view(np.uint32) & 0xFFFF == 0).all())

    def to_bytes(self) -> bytes:
        """Serialise for a cache: a header and 2 bytes per weight, 4 if fp16 would round one. See :meth:`from_bytes`."""
        halves = self.values.astype("<f2")
        exact = np.array_equal(halves.astype(np.float32), self.values, equal_nan=True)
        return self._header("<f2" if exact else "<f4") + (halves if exact else self.values.astype("<f4")).tobytes()

    def rounded_bytes(self) -> bytes:
        """As :meth:`to_bytes`, but the same for fp32 and fp16 copies of the same weights."""
        return self._header("<f2") + (self.values.astype("<f2") + np.float16(0)).astype("<f2").tobytes()  # no -0

    def _header(self, dtype: str) -> bytes:
        facts = {"structure": self.structure, "spans": self.spans, "totals": self.totals}
        return json.dumps({"version": _VERSION, "dtype": dtype, **facts}).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """Parse the result of :meth:`to_bytes`.

        Raises:
            ValueError: the bytes are not a sketch of this version.
        """
        line, _, body = data.partition(b"\n")
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("version") != _VERSION:
            raise ValueError("not a sketch of this version")
        try:
            spans = tuple((str(name), int(start), int(stop)) for name, start, stop in header["spans"])
            structure, totals = str(header["structure"]), tuple(map(int, header["totals"]))
        except (KeyError, TypeError) as error:
            raise ValueError("a sketch with a damaged header") from error
        dtype = header.get("dtype")
        if dtype not in ("<f2", "<f4"):
            raise ValueError("a sketch of an unknown dtype")
        width = int(dtype[-1])
        starts, stops = [start for _, start, _ in spans], [stop for _, _, stop in spans]
        sizes = [total >= stop - start > 0 for total, (_, start, stop) in zip(totals, spans, strict=True)]
        if [0, *stops] != [*starts, len(body) // width] or len(body) % width or not all(sizes):
            raise ValueError("a sketch whose spans do not match its values")
        return cls(structure, _frozen(np.frombuffer(body, dtype).astype(np.float32)), spans, totals)


def sketch_of_state(state: Mapping[str, Tensor]) -> Sketch:
    """The sketch of a VAE in memory, in canonical form (see :mod:`vae_lab.state_dict`) and any dtype."""

    def read(name: str, runs: _Runs) -> Tensor:
        flat = state[name].detach().flatten()
        return torch.cat([flat[start : start + count].float() for start, count in runs])

    return _sketch({name: tuple(tensor.shape) for name, tensor in state.items()}, read)


def sketch_of_file(vae: VaeFile) -> Sketch:
    """The sketch of a VAE in a file. Only reads the sampled ranges: 0.4 MB of an SD1 VAE in fp32.

    Tensors that are not in C order (``channels_last``) are read completely.

    Raises:
        FileError: the file is truncated or malformed.
    """
    return _sketch(vae.shapes, lambda name, runs: vae.weights.read_runs(vae.layout.names[name], runs))


def distance(a: Sketch, b: Sketch) -> float:
    """|a - b| / |a| over all convolutions, estimated from the samples.

    0 for the same weights, 0.05 to 0.3 for fine-tunes, about 1.4 for unrelated VAEs.

    Raises:
        ValueError: the structures differ.
    """
    left, right = _pair(a, b)
    return _ratio(float(np.linalg.norm(left - right)), float(np.linalg.norm(left)))


def distance_by_tensor(a: Sketch, b: Sketch) -> dict[str, float]:
    """As :func:`distance`, for each tensor, in the order of the spans.

    Raises:
        ValueError: the structures differ.
    """
    left, right = _pair(a, b)
    difference = left - right
    return {
        name: _ratio(float(np.linalg.norm(difference[start:stop])), float(np.linalg.norm(left[start:stop])))
        for name, start, stop in a.spans
    }


def cosine(a: Sketch, b: Sketch) -> float:
    """Estimated cosine of the angle between all convolutions' weights; 0 if one VAE's are all zero.

    Raises:
        ValueError: the structures differ.
    """
    left, right = _pair(a, b)
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / scale if scale else 0.0


def relation(a: Sketch, b: Sketch) -> Relation | None:
    """How two VAEs are related; None if their structures differ or weights are NaN.

    ``recast``: the same weights, perhaps in another dtype. ``relative``: fine-tunes. ``unrelated``: trained
    independently. ``distant``: between these two.
    """
    if a.structure != b.structure or not (a.finite and b.finite):
        return None
    if distance(a, b) < RECAST:
        return "recast"
    similarity = cosine(a, b)
    if similarity > RELATIVE:
        return "relative"
    return "unrelated" if similarity < UNRELATED else "distant"


def _sketch(shapes: Mapping[str, tuple[int, ...]], read: Callable[[str, _Runs], Tensor]) -> Sketch:
    names = sorted(name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 4)
    convolutions = {name: shapes[name] for name in names}
    pieces: list[npt.NDArray[np.float32]] = []
    spans: list[tuple[str, int, int]] = []
    position = 0
    for name, shape in convolutions.items():
        runs = _runs(name, shape)
        if runs:
            pieces.append(_clamped(read(name, runs)))
            spans.append((name, position, position + len(pieces[-1])))
            position = spans[-1][2]
    values = np.concatenate([np.empty(0, np.float32), *pieces])
    totals = tuple(math.prod(shapes[name]) for name, _, _ in spans)
    return Sketch(_structure(convolutions.items()), _frozen(values), tuple(spans), totals)


def _structure(convolutions: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    text = "\n".join(f"{name}{list(shape)}" for name, shape in convolutions)
    return hashlib.sha256(f"{_VERSION}\n{text}".encode()).hexdigest()[:16]


def _runs(name: str, shape: tuple[int, ...]) -> _Runs:
    """The sampled weights of a tensor in C order, as (start, count): one run in each of equal parts."""
    total = math.prod(shape)
    samples = min(total, max(_MIN_SAMPLES, total // _INTERVAL))
    if not samples:
        return []
    parts = -(-samples // _RUN)
    runs = []
    for part in range(parts):
        begin, end = total * part // parts, total * (part + 1) // parts
        count = samples * (part + 1) // parts - samples * part // parts
        digest = hashlib.sha256(f"{name}{list(shape)}{part}".encode()).digest()
        runs.append((begin + int.from_bytes(digest[:8], "big") % (end - begin - count + 1), count))
    return runs


def _clamped(values: Tensor) -> npt.NDArray[np.float32]:
    """As fp32, clamped exactly as the fingerprint does. Adding 0 makes -0 to 0."""
    return (values.cpu().float().clamp(-_LARGEST_HALF, _LARGEST_HALF) + 0.0).numpy()


def _frozen(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    values.setflags(write=False)
    return values


def _pair(a: Sketch, b: Sketch) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if a.structure != b.structure:
        raise ValueError("sketches of different structures cannot be compared")
    return a.scaled, b.scaled


def _ratio(difference: float, length: float) -> float:
    if length:
        return difference / length
    return math.inf if difference else 0.0
