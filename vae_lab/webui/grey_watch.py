"""Watch what the WebUI decodes: warn under an image whose VAE is broken, or decode it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from modules import devices, shared
from torch import Tensor

from vae_lab.checkup import Finding, glance
from vae_lab.checkup.findings import BROKEN
from vae_lab.checkup.watch import confirmed
from vae_lab.errors import HostError
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.infotext import REDECODED_KEY
from vae_lab.latents.family import Family
from vae_lab.library import Recommendation
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.job import Job

__all__ = ["GreyWatch"]

_LOOKS = {
    "grey": "washed out",
    "flat": "a single flat colour",
    "black": "black",
    "nan": "made of NaN values",
    "wrong-family": "in wrong colours",
    "colour-cast": "in wrong colours",
    "noisy-or-patterned": "noisy",
}


class GreyWatch:
    """Compares latent and image, after the host has decoded."""

    def __init__(self, host: A1111Host) -> None:
        self.host = host

    def after_decode(self, job: Job, latents: Tensor, decoded: Any, again: Callable[[], Any]) -> Any:
        """The images for the host: ``decoded``, or what ``again`` decodes with a better VAE.

        Args:
            job: of this generation.
            latents: [B,C,h,w] in model space.
            decoded: B tensors [3,H,W] in -1..1, as the host has them.
            again: decodes the same latents with the VAE that is active at that time.
        """
        family = self.host.vae.family()
        if family is None or job.on_grey == "off" or job.redecoded:
            return decoded
        code = self._fault(job, latents, decoded, family)
        if not code:
            if _encodes(job.p) and self._encoder_is_broken(job):
                warning = f"the encoder of {self._name(job)} is broken, so the input image was washed out"
                job.p.comment(f"VAE Lab: {warning}. {_advice(self.host.recommendation(), family)}")
            return decoded
        name = self._name(job)
        if job.on_grey == "redecode":
            found = self.host.recommendation(search=True)
            if found is not None and found.name != name:
                return self._redecoded(job, code, name, found, again)
        advice = _advice(self.host.recommendation(), family)
        blame = f"this image is {_LOOKS[code]}, because {name} is broken"
        if _overflowed(code):
            blame = f"{name} produced NaN values in fp16. {self._precision()}. If that does not help, use another VAE"
        job.p.comment(f"VAE Lab: {blame}. {advice}")
        return decoded

    def after_failure(self, job: Job, again: Callable[[], Any]) -> Any:
        """The host has given up after NaN from its VAE: decode ``again`` with a better VAE, if ``redecode`` is on.

        Raises:
            HostError: ``redecode`` is off, or there is no better VAE.
        """
        name = self._name(job)
        found = self.host.recommendation(search=True) if job.on_grey == "redecode" and not job.redecoded else None
        if found is None or found.name == name:
            overflow = f" in fp16. {self._precision()}" if _overflowed("nan") else ""
            raise HostError(f"{name} produced NaN values{overflow}")
        return self._redecoded(job, "nan", name, found, again)

    def _precision(self) -> str:
        """How to decode in another precision."""
        return f"Start {self.host.name} with {self.host.vae_precision_flag}"

    def _name(self, job: Job) -> str:
        """The active VAE, human-readable."""
        name = job.overriding or self.host.host_decision().vae
        return f"{BUILT_IN} of {self.host.current_checkpoint()}" if name == BUILT_IN else name

    def _fault(self, job: Job, latents: Tensor, decoded: Any, family: Family) -> str:
        """Code of what is wrong with these images because of the VAE; "" if nothing."""
        images = _images(decoded)
        if images.shape[2] < 8 * latents.shape[2]:
            return ""  # not decoded by a VAE
        sampled = latents.isfinite().flatten(1).all(dim=1).cpu()  # NaN in a latent is caused by the model
        if not sampled.any():
            return ""
        latents, images = latents[sampled], images[sampled]
        seen = glance(latents, images, family)
        obvious = next((one.fault for one in seen if one.fault), "")
        if obvious:
            return obvious
        memory = self.host.check_memory(job.overriding or self.host.host_decision().vae, own=not job.overriding)
        blamed = _blamed(memory.checkup.findings) if memory else ""
        if blamed:
            return blamed
        pale = [i for i, one in enumerate(seen) if one.pale]
        return "grey" if pale and self._second_opinion(job, latents[pale], images[pale]) else ""

    def _encoder_is_broken(self, job: Job) -> bool:
        """According to the report on its file, if there is one: it cannot be seen from an image."""
        decision = self.host.decision(job.overriding) if job.overriding else self.host.host_decision()
        record = self.host.file_cache.checked(decision.path) if decision.path else None
        faults = record.verdict.faults if record else ()
        return any(fault.code == "encoder-broken" and fault.severity == BROKEN for fault in faults)

    def _second_opinion(self, job: Job, latents: Tensor, images: Tensor) -> bool:
        """Whether a healthy VAE decodes these latents with clearly more contrast."""
        found = self.host.recommendation()
        if found is None or found.name == job.overriding:
            return False
        return any(confirmed(images, job.decoded_with(self.host.weights(found.name), latents)))

    def _redecoded(self, job: Job, code: str, name: str, found: Recommendation, again: Callable[[], Any]) -> Any:
        blame = "produced NaN values in fp16" if _overflowed(code) else f"is broken ({_LOOKS[code]})"
        back = job.override(lambda: self.host.weights(found.name))
        try:
            better = _finite(again(), found.name)
        except BaseException:
            back()
            raise
        job.redecoded = True
        job.p.extra_generation_params[REDECODED_KEY] = f"{name} was {_LOOKS[code]}"
        job.p.comment(f"VAE Lab: {name} {blame}; decoded again with {found.name}: {found.reason}.")
        return better


def _encodes(p: Any) -> bool:
    """Whether this generation encodes an image with the VAE: img2img, or hires fix with a pixel upscaler."""
    if getattr(shared.opts, "sd_vae_encode_method", "Full") != "Full":
        return False
    hires = getattr(p, "enable_hr", False) and getattr(p, "latent_scale_mode", None) is None
    return bool(getattr(p, "init_images", None)) or hires


def _overflowed(code: str) -> bool:
    """Whether there is NaN and the host decodes in fp16, whose limit intact VAEs can exceed too: it may be no fault."""
    return code == "nan" and devices.dtype_vae == torch.float16


def _blamed(findings: Sequence[Finding]) -> str:
    return next((finding.code for finding in findings if finding.severity == BROKEN and finding.code in _LOOKS), "")


def _images(decoded: Any) -> Tensor:
    """The host's images as [B,3,H,W], about 0..1, including NaN."""
    return (torch.stack([image.float().cpu() for image in decoded]) + 1.0) / 2.0


def _finite(decoded: Any, name: str) -> Any:
    """``decoded``. Raises HostError: it has NaN or infinite values."""
    if not bool(_images(decoded).isfinite().all()):
        raise HostError(f"{name} produced NaN values as well")
    return decoded


def _advice(found: Recommendation | None, family: Family) -> str:
    if found is None:
        return f"Get a healthy VAE for {family.title} and choose it for this checkpoint in the tab VAE Lab > Checkup."
    return f"Choose {found.name} for this checkpoint in the tab VAE Lab > Checkup: {found.reason}."
