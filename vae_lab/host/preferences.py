"""The preferred VAE of a checkpoint, in the JSON file next to it: the WebUI's own preference."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from vae_lab.autoencoders import VaeFile
from vae_lab.errors import HostError
from vae_lab.host.choices import AUTOMATIC
from vae_lab.new_file import new_file

__all__ = [
    "NO_VAE_FILE", "WEBUI_KEY", "metadata_file", "read_metadata", "read_preference", "webui_reads", "with_preference",
    "write_metadata", "write_preference",
]  # fmt: skip

MAX_METADATA = 2**22  # bytes; such a file has a few kilobytes
_IGNORED = ("model_ema.decay", "model_ema.num_updates")  # ``sd_vae.vae_ignore_keys``

WEBUI_KEY = "vae"
"""Under which the WebUI reads the base name of a VAE file; empty or ``Automatic`` for its usual search."""

NO_VAE_FILE = "None"
"""What the WebUI calls the built-in VAE there."""


def metadata_file(checkpoint: str) -> Path:
    """Where the host stores what the user has noted about a checkpoint."""
    return Path(checkpoint).with_suffix(".json")


def read_preference(checkpoint: str, key: str) -> str:
    """The preferred VAE under ``key``, in the host's own terms; ``Automatic`` if there is none."""
    try:
        metadata = json.loads((read_metadata(metadata_file(checkpoint)) or b"").decode("utf8"))
    except (HostError, ValueError, RecursionError):
        return AUTOMATIC
    preferred = metadata.get(key) if isinstance(metadata, dict) else None
    return preferred if isinstance(preferred, str) and preferred else AUTOMATIC


def write_preference(checkpoint: str, key: str, vae: str) -> None:
    """Store the preferred VAE under ``key``. All other keys stay: other tools have theirs in this file.

    Raises:
        HostError: the file cannot be written, or is not a JSON object.
    """
    write_metadata(metadata_file(checkpoint), with_preference(checkpoint, key, vae)[1])


def with_preference(checkpoint: str, key: str, vae: str) -> tuple[bytes | None, bytes]:
    """What :func:`write_preference` writes: the file's content now, None without one, and then.

    Raises:
        HostError: the file cannot be read, or is not a JSON object.
    """
    file = metadata_file(checkpoint)
    before = read_metadata(file)
    try:
        metadata = {} if before is None else json.loads(before.decode("utf8"))
    except (ValueError, RecursionError) as error:
        raise HostError(f"the preference could not be written to {file}: {error}") from error
    if not isinstance(metadata, dict):
        raise HostError(f"{file} is not a JSON object; the preference was not written")
    metadata[key] = vae
    # As text, so that line ends are those of the system, as other tools write them.
    text = json.dumps(metadata, indent=4, ensure_ascii=False).replace("\n", os.linesep)
    try:
        return before, text.encode("utf8")
    except ValueError as error:  # half of a surrogate pair
        raise HostError(f"the preference could not be written to {file}: {error}") from error


def read_metadata(file: Path) -> bytes | None:
    """Content of the file next to a checkpoint; None if it does not exist.

    Raises:
        HostError: it cannot be read, or is too large.
    """
    try:
        if file.stat().st_size > MAX_METADATA:
            raise HostError(f"{file} is larger than {MAX_METADATA >> 20} MB, so it is not read")
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{file} could not be read: {error.strerror or error}") from error


def write_metadata(file: Path, content: bytes | None) -> None:
    """Replace the content of the file next to a checkpoint, whole or not at all; None removes the file.

    Raises:
        HostError: it cannot be written.
    """
    try:
        if content is None:
            file.unlink(missing_ok=True)
            return
        target = file.resolve()  # a link stays a link
        with new_file(target, overwrite=True) as out:
            out.write(content)
            with suppress(OSError):
                shutil.copymode(target, out.name)
    except OSError as error:
        raise HostError(f"the preference could not be written to {file}: {error.strerror or error}") from error


def webui_reads(file: VaeFile) -> bool:
    """Whether ``sd_vae.load_vae_dict`` of the WebUI finds this VAE's tensors: it knows ldm's names only."""
    names, wrapper = list(file.weights.tensors), "state_dict."
    if file.weights.container != "safetensors" and any(name.startswith(wrapper) for name in names):
        names = [name.removeprefix(wrapper) for name in names if name.startswith(wrapper)]
    return {name for name in names if name[:4] != "loss" and name not in _IGNORED} == set(file.shapes)
