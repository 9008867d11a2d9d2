"""Finds the VAE in a file: prefixes, key layouts, canonical names."""

from vae_lab.state_dict.canonical import (
    VAE_PARTS,
    Layout,
    family_hint,
    find_vae,
    is_checkpoint,
    read_by_hosts,
    unet_family,
    usual_prefix,
)
from vae_lab.state_dict.kinds import KINDS_BY_ID, Kind, explain
from vae_lab.state_dict.lost_data import LostData, find_lost_data
from vae_lab.state_dict.reading import canonical_shape, not_finite, read_tensors

__all__ = [
    "KINDS_BY_ID",
    "VAE_PARTS",
    "Kind",
    "Layout",
    "LostData",
    "canonical_shape",
    "explain",
    "family_hint",
    "find_lost_data",
    "find_vae",
    "is_checkpoint",
    "not_finite",
    "read_by_hosts",
    "read_tensors",
    "unet_family",
    "usual_prefix",
]
