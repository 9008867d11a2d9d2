"""The always-on script's behaviour in the WebUI; its page is in ``vae_lab.ui``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modules import shared

from vae_lab.errors import UnknownChoice
from vae_lab.host.base import AUTOMATIC, BUILT_IN
from vae_lab.host.guard import guarded
from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY, forget_override
from vae_lab.host.plan import Plan
from vae_lab.identity import short
from vae_lab.webui.a1111 import ON_GREY_OPTION, A1111Host
from vae_lab.webui.capture import Generations
from vae_lab.webui.job import Job
from vae_lab.webui.xyz_axis import chosen_by_axis

__all__ = ["ScriptBehaviour"]


class ScriptBehaviour:
    """From the accordion's values to a job."""

    def __init__(self, host: A1111Host, generations: Generations) -> None:
        self.host = host
        self.generations = generations

    def process(self, p: Any, args: Sequence[Any]) -> None:
        """Called once for each ``process_images``, before anything is encoded."""
        # A script that runs one p several times must not keep an earlier run's keys.
        forget_override(p)
        with guarded("reading the accordion", p.comment):
            plan = Plan.from_args(args)
            wanted = chosen_by_axis(p) or plan.override
            choice = wanted if wanted != AUTOMATIC else self.host.standing_choice()
            job = self.generations.job_of(p)
            if job is None:
                return
            job.compare = plan.compare
            job.on_grey = plan.on_grey or getattr(shared.opts, ON_GREY_OPTION, "warn")
            if choice != AUTOMATIC:
                self._override(p, job, choice)

    def _override(self, p: Any, job: Job, choice: str) -> None:
        if shared.opts.sd_vae_decode_method != "Full":
            p.comment(
                f"VAE Lab: {choice} does not decode this image, because Settings > VAE > VAE type for decode "
                f"is {shared.opts.sd_vae_decode_method}; set it to Full."
            )
        job.override(lambda: self.host.weights(choice))

    def pasted(self, parameters: Mapping[str, Any]) -> str:
        """The accordion's choice for pasted generation parameters: by name, else by weights, else Automatic."""
        wanted = parameters.get(OVERRIDE_KEY)
        if not wanted:
            return AUTOMATIC
        names = {name: str(path) for name, path in self.host.listing(fresh=True).vaes.items()}
        digest = parameters.get(HASH_KEY, "")
        if wanted == BUILT_IN or (wanted in names and self._has_digest(names[wanted], digest)):
            return wanted
        same_weights = next((name for name, path in names.items() if digest and self._has_digest(path, digest)), None)
        if same_weights:
            return same_weights
        if wanted in names:
            return wanted
        raise UnknownChoice(f"the image was decoded by {wanted} ({digest}), which is not here")

    def _has_digest(self, path: str, digest: str) -> bool:
        facts = self.host.facts.known(path)
        return facts is not None and short(facts.fingerprint) == digest
