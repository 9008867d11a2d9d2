"""What VAE a file really holds: exactly, nearly, and of what it was merged."""

from vae_lab.identity.catalogue import (
    KnownCheckpoint,
    KnownVae,
    Style,
    file_sha256,
    known_checkpoint,
    known_file,
    known_vae,
    legacy_hash,
    style_of_checkpoint,
    suits,
)
from vae_lab.identity.duplicates import (
    DuplicateGroup,
    HasVae,
    already_contains,
    contains_sentence,
    find_duplicates,
    sketch_digest,
)
from vae_lab.identity.fingerprint import fingerprint, memory_digest, short
from vae_lab.identity.merge import Merge, Parent, explain_merge
from vae_lab.identity.sketch import (
    Sketch,
    cosine,
    distance,
    distance_by_tensor,
    relation,
    sketch_of_file,
    sketch_of_state,
)

__all__ = [
    "DuplicateGroup",
    "HasVae",
    "KnownCheckpoint",
    "KnownVae",
    "Merge",
    "Parent",
    "Sketch",
    "Style",
    "already_contains",
    "contains_sentence",
    "cosine",
    "distance",
    "distance_by_tensor",
    "explain_merge",
    "file_sha256",
    "find_duplicates",
    "fingerprint",
    "known_checkpoint",
    "known_file",
    "known_vae",
    "legacy_hash",
    "memory_digest",
    "relation",
    "short",
    "sketch_digest",
    "sketch_of_file",
    "sketch_of_state",
    "style_of_checkpoint",
    "suits",
]
