"""Opens a weights file of any supported format."""

from __future__ import annotations

import os
from contextlib import ExitStack

from vae_lab.time_limit import TimeLimit

from .limits import DEFAULT_LIMITS, Limits
from .remote import open_source
from .safetensors_file import parse_safetensors
from .sniffing import Format, sniff
from .source import ByteSource, TimedSource
from .torch_legacy import parse_torch_legacy
from .torch_zip import parse_torch_zip
from .weight_file import WeightFile

__all__ = ["open_weights"]

_PARSERS = {
    Format.SAFETENSORS: parse_safetensors,
    Format.TORCH_ZIP: parse_torch_zip,
    Format.TORCH_LEGACY: parse_torch_legacy,
}


def open_weights(
    path: str | os.PathLike[str] | ByteSource, *, limits: Limits = DEFAULT_LIMITS, time: TimeLimit | None = None
) -> WeightFile:
    """Open a .safetensors, .ckpt or .pt file by path or URL; its content decides the format.

    Only the description of the tensors is read. Nothing in the file is executed. Raises UnreadableFile,
    MalformedFile or UnsafePickle, or once ``time`` is over, NotFinished; the source is then closed, even one that was
    passed in.
    """
    source = open_source(path, time=time) if isinstance(path, (str, os.PathLike)) else path
    source = TimedSource(source, time) if time else source
    with ExitStack() as undo:
        undo.callback(source.close)
        contents = _PARSERS[sniff(source)](source, limits)
        undo.pop_all()
    return WeightFile(source, contents, limits)
