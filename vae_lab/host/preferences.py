"""The preferred VAE of a checkpoint, in the JSON file next to it: the WebUI's own preference."""

from __future__ import annotations

import json
from pathlib import Path

from vae_lab.errors import HostError
from vae_lab.host.choices import AUTOMATIC
from vae_lab.new_file import new_file

__all__ = ["NO_VAE_FILE", "WEBUI_KEY", "metadata_file", "read_preference", "write_preference"]

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
        metadata = json.loads(metadata_file(checkpoint).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return AUTOMATIC
    preferred = metadata.get(key) if isinstance(metadata, dict) else None
    return preferred if isinstance(preferred, str) and preferred else AUTOMATIC


def write_preference(checkpoint: str, key: str, vae: str) -> None:
    """Store the preferred VAE under ``key``. All other keys stay: other tools have theirs in this file.

    Raises:
        HostError: the file cannot be written, or is not a JSON object.
    """
    file = metadata_file(checkpoint)
    try:
        metadata = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
        if not isinstance(metadata, dict):
            raise HostError(f"{file} is not a JSON object; the preference was not written")
        metadata[key] = vae
        text = json.dumps(metadata, indent=4, ensure_ascii=False)
        with new_file(file, overwrite=True) as out:
            out.write(text.encode())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise HostError(f"the preference could not be written to {file}: {why}") from error
