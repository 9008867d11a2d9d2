"""Limits on what a file may make us allocate.

Checkpoints are untrusted. Every size that a file declares is checked against the size of the file and these limits
before memory is allocated for it. All limits are far above what legitimate files need.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True)
class Limits:
    """The limits, each with its reason. VAE Lab uses the defaults; tests lower them."""

    header_bytes: int = 100_000_000
    """safetensors header. The reference implementation has the same limit, so no larger one has been published."""

    header_values: int = 1_000_000
    """JSON values in a safetensors header. A tensor takes about 15; each value takes up to 100 bytes once parsed."""

    tensors: int = 50_000
    """Tensors in one file. An SDXL training checkpoint with optimiser states has about 10,000."""

    name_length: int = 4096
    """Characters in a tensor's name. Names of nested dicts are joined; real ones are under 200."""

    dimensions: int = 64
    """Dimensions of a tensor. torch itself does not support more."""

    elements: int = 2**63 - 1
    """Elements of a tensor. torch counts them in a signed 64-bit number and overflows beyond."""

    tensor_bytes: int = 16 * 2**30
    """Bytes of one tensor that is read. Ten times the largest single tensor of any known image model."""

    expanded_bytes: int = 64 * 2**20
    """Bytes of a tensor larger than its storage (a stride of 0 repeats values). Legitimate ones are small buffers."""

    all_expanded_bytes: int = 512 * 2**20
    """Bytes of all such tensors of a file. A text encoder with an expanded mask in each of its layers needs 100 MB."""

    directory_bytes: int = 8 * 2**20
    """Central directory of a zip archive. 3,000 storages need about 250 kB; Python uses ten times that to list it."""

    pickle_bytes: int = 32 * 2**20
    """Pickle that describes the tensors. 3,000 tensors need about 500 kB; training logs inside can add megabytes."""

    pickle_line: int = 65_536
    """Characters in a line of a text opcode. Old Python versions convert long decimal numbers in quadratic time."""

    opcodes: int = 2_000_000
    """Opcodes in a pickle. A tensor takes about 25; each opcode can use 200 bytes of memory."""

    memo_entries: int = 1_000_000
    """Memo entries in a pickle. A tensor takes about 8."""

    symbol_length: int = 1024
    """Characters in the dotted name of a global. Real ones are under 100."""

    stack_depth: int = 100_000
    """Values on the pickle's stack since the last mark. Picklers write containers in batches of 1,000."""

    marks: int = 1000
    """Open marks in a pickle. Python's own pickler fails at about this depth of nesting."""

    nesting: int = 32
    """Depth of dicts and lists that is searched for tensors. Optimiser states, the deepest known, need 5."""

    visited_values: int = 1_000_000
    """Values visited in that search. Without a limit, ten nested lists of ten references each mean 10**10 visits."""


DEFAULT_LIMITS = Limits()
