"""An image through the encoder of one VAE and the decoder of the same or another one, at its own size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_lab.autoencoders import Autoencoder
from vae_lab.comparison import to_pixels
from vae_lab.comparison.round_trip import check_encodes
from vae_lab.decoding import Decoder, check_family, error_line
from vae_lab.errors import Cancelled, FamilyMismatch, HostError
from vae_lab.host.base import Host, Place
from vae_lab.host.choices import AUTOMATIC
from vae_lab.images import flattened
from vae_lab.latents.family import Family

__all__ = ["chosen_vaes", "reencoded"]


def chosen_vaes(host: Host, encode: str, decode: str) -> tuple[str, str]:
    """Names of the VAEs that encode and decode.

    ``Automatic`` encodes with the VAE in use, or if that is known to be broken and another one to be healthy, with the
    recommended one; it decodes with the VAE that encodes.
    """
    encoder = _in_use(host) if encode == AUTOMATIC else encode
    return encoder, encoder if decode == AUTOMATIC else decode


def _in_use(host: Host) -> str:
    decision = host.decision()
    if not decision.path:  # no file decodes, such as with a method without a VAE
        decision = host.host_decision()
    known, checked = host.file_cache.known(decision.path), host.file_cache.checked(decision.path)
    is_broken = bool((known and known.problem) or (checked and checked.verdict.faults))
    found = host.known_recommendation(host.current_checkpoint()) if is_broken else None
    return found.name if found is not None else decision.vae


def reencoded(
    host: Host, image: Image.Image, encoder: str, decoder: str, interrupted: Callable[[], bool]
) -> Image.Image:
    """Encode and decode an image, in a job of the host. The VAEs are loaded from their files and released again.

    Args:
        host: of which the caller holds the queue.
        image: of any mode and size. Its alpha channel takes no part and is kept.
        encoder: name of a VAE or a checkpoint, or ``Built-in``.
        decoder: as ``encoder``.
        interrupted: asked before encoding and before decoding.

    Returns:
        RGB, or RGBA if ``image`` has an alpha channel; of the same size.

    Raises:
        Cancelled: it was interrupted.
        VaeLabError: a VAE cannot be used, the two do not fit, or there is not enough memory.
    """
    rgb, alpha = _split(image)
    pixels = torch.from_numpy(np.array(rgb, dtype=np.uint8)).permute(2, 0, 1)[None].float() / 255.0
    try:
        with host.place_in_job() as place:
            decoded = _through(host, place, pixels, (encoder, decoder), interrupted)
    except (RuntimeError, MemoryError, OSError) as error:  # from torch or the disk
        raise HostError(error_line(f"{encoder}, {decoder}" if encoder != decoder else encoder, error)) from error
    result = Image.fromarray(to_pixels(decoded)[0])
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """RGB, and the alpha channel or None. Nothing is put behind transparent pixels: their colours are kept."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return flattened(image), None
    with_alpha = image.convert("RGBA")
    return with_alpha.convert("RGB"), with_alpha.getchannel("A")


def _through(
    host: Host, place: Place, pixels: Tensor, names: tuple[str, str], interrupted: Callable[[], bool]
) -> Tensor:
    """[1,3,H,W] -> the same size on the CPU. Two VAEs are never in memory at the same time."""
    encoder, decoder = names
    with host.own_vae(encoder, place) as vae:
        latent, family = _encode(vae, pixels, encoder, interrupted), vae.family
        if decoder == encoder:
            return _decode(vae, latent, pixels, decoder, interrupted)
        del vae
    with host.own_vae(decoder, place) as vae:
        if family is not None:
            check_family(decoder, vae.family, family)
        return _decode(_of_family(vae, family), latent, pixels, decoder, interrupted)


def _of_family(vae: Autoencoder, family: Family | None) -> Autoencoder:
    return vae if vae.family is not None else vae.with_family(family)


def _encode(vae: Autoencoder, pixels: Tensor, name: str, interrupted: Callable[[], bool]) -> Tensor:
    padded = _padded(pixels, vae.downscale)
    check_encodes(vae, padded)
    _stop_if(interrupted)
    return _finite(vae.encode(padded).float().cpu(), name)


def _decode(vae: Autoencoder, latent: Tensor, pixels: Tensor, name: str, interrupted: Callable[[], bool]) -> Tensor:
    _stop_if(interrupted)
    decoded, _ = Decoder.of(vae).decode(latent)
    height, width = pixels.shape[-2:]
    if decoded.shape[-2:] != _padded(pixels, vae.downscale).shape[-2:]:
        raise FamilyMismatch(f"{name} decodes these latents to another size")
    return _finite(decoded, name)[..., :height, :width]


def _padded(pixels: Tensor, multiple: int) -> Tensor:
    """With the last row and column repeated, up to multiples of ``multiple``."""
    height, width = pixels.shape[-2:]
    return torch.nn.functional.pad(pixels, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def _finite(values: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise HostError(f"{name} produced NaN or infinite values")
    return values


def _stop_if(interrupted: Callable[[], bool]) -> None:
    if interrupted():
        raise Cancelled("interrupted")
