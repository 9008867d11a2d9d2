"""Reads single tensors, by byte range, from safetensors and from torch's two formats.

No pickle is ever executed, and only the requested bytes are read. A bad file raises an error of ``vae_lab.errors``
that names the file and the reason in one line.
"""

from __future__ import annotations

from .addresses import file_name, is_url, shown_name
from .limits import Limits
from .open import open_weights
from .remote import open_source
from .source import ByteSource, LocalFile, MemorySource
from .weight_file import TensorInfo, WeightFile

__all__ = [
    "ByteSource",
    "Limits",
    "LocalFile",
    "MemorySource",
    "TensorInfo",
    "WeightFile",
    "file_name",
    "is_url",
    "open_source",
    "open_weights",
    "shown_name",
]
