"""Recommends a VAE to use instead of a broken one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vae_lab.identity import Style, style_of_checkpoint, suits
from vae_lab.latents.family import Family
from vae_lab.library.folders import own_vaes
from vae_lab.library.record import FileRecord

__all__ = ["Recommendation", "recommend"]


@dataclass(frozen=True)
class Recommendation:
    """A recommended VAE, and the reason.

    Attributes:
        name: of the VAE.
        reason: why, as text that follows the name and a colon.
        fits: whether no better one can exist: it is the user's own choice, or made for the checkpoint or its style.
    """

    name: str
    reason: str
    fits: bool = True


def recommend(
    checkpoint: str, family: Family, records: Mapping[str, FileRecord], preferred: Mapping[str, str] | None = None
) -> Recommendation | None:
    """The best VAE that is known to be healthy and of the family, or None.

    Args:
        checkpoint: file name of the checkpoint. Its own VAE is called ``NAME.vae.EXT``; otherwise, the name hints at
            anime or realistic images.
        family: latent family of the checkpoint.
        records: name -> record of the user's VAEs, in the host's order.
        preferred: name -> where the user chose it, human-readable; the first one wins.
    """
    healthy = {name: record for name, record in records.items() if _can_replace(record, family)}
    for name, where in (preferred or {}).items():
        if name in healthy:
            return Recommendation(name, f"it is your preferred VAE ({where}), healthy and of the {family.title} family")
    if not healthy:
        return None
    for name in own_vaes(checkpoint, healthy):
        return Recommendation(name, f"it is this checkpoint's own VAE, healthy and of the {family.title} family")
    style = style_of_checkpoint(checkpoint)
    name = min(healthy, key=lambda name: _misfit(_made_for(name, healthy[name]), style))
    made_for = _made_for(name, healthy[name])
    reason = f"it is healthy and of the {family.title} family"
    if made_for and made_for == style:
        reason = (
            f"it is healthy, of the {family.title} family, and made for {style} images, as this checkpoint's name "
            "suggests"
        )
    return Recommendation(name, reason, fits=_misfit(made_for, style) == 0)


def _can_replace(record: FileRecord, family: Family) -> bool:
    # Hosts can only load an AutoencoderKL here.
    return record.can_replace and record.family_id == family.id and record.architecture == "AutoencoderKL"


def _made_for(name: str, record: FileRecord) -> Style | None:
    return suits(record.identity.name if record.identity else name)


def _misfit(made_for: Style | None, style: Style | None) -> int:
    if style is None:
        return 1 if made_for == "anime" else 0  # adds contrast and colour that the user did not ask for
    return 0 if made_for == style else 1 if made_for is None else 2
