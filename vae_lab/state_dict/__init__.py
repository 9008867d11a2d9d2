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
    vae_tensors,
)
from vae_lab.state_dict.kinds import KINDS_BY_ID, Kind, explain, pixel_model
from vae_lab.state_dict.lost_data import LostData, find_lost_data
from vae_lab.state_dict.models import model_family, takes_latents
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
    "model_family",
    "not_finite",
    "pixel_model",
    "read_by_hosts",
    "read_tensors",
    "takes_latents",
    "unet_family",
    "usual_prefix",
    "vae_tensors",
]
