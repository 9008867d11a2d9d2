"""What the always-on script does in the WebUI; its accordion is in ``vae_lab.ui``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_lab.errors import VaeLabError
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, Choice, resolve
from vae_lab.host.guard import guarded
from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY, forget_override
from vae_lab.host.plan import NotHere, Plan, asks_to_fall_back
from vae_lab.identity import short
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.capture import Jobs
from vae_lab.webui.job import Job
from vae_lab.webui.own_choice import decode_method
from vae_lab.webui.preferences import on_grey
from vae_lab.webui.xyz_axis import chosen_by_axis

__all__ = ["ScriptBehaviour"]


class ScriptBehaviour:
    """From the accordion's values to a job."""

    def __init__(self, host: A1111Host, jobs: Jobs) -> None:
        self.host = host
        self.jobs = jobs

    def process(self, p: Any, args: Sequence[Any]) -> None:
        """Called once for each ``process_images``, before anything is encoded."""
        with guarded("reading the accordion", p.comment):
            job = self.jobs.job_of(p)
            if job is None:  # some extensions call this with a copy of what is being generated, to read its parameters
                self._say_bypassed(p, args)
                return
            # Scripts may run one p several times; keys of an earlier run must go.
            forget_override(p)
            self._begin(p, job, args)

    def batch_begins(self, p: Any) -> None:
        """Called before each batch is sampled."""
        job = self.jobs.job_of(p)
        if job is not None:
            job.between_batches = False

    def batch_ends(self, p: Any) -> None:
        """Called once a batch is decoded. Detailers decode afterwards, some of them past our hooks."""
        job = self.jobs.job_of(p)
        if job is not None:
            job.between_batches = True

    def _say_bypassed(self, p: Any, args: Sequence[Any]) -> None:
        """Of a generation that we cannot follow: else nothing would be done about it, in silence."""
        bypassed = self.jobs.bypassed_by()
        if not bypassed:
            return
        plan = Plan.from_args(args)
        choice = resolve(self.host.standing_choices_when_loaded(), plan.override, chosen_by_axis(p))
        lost = [f"{choice.vae} does not decode it"] if choice.vae != AUTOMATIC else []
        lost += ["it is not decoded with other VAEs"] if plan.compare else []
        effect = " and ".join([*lost, "its latents are not stored"])
        p.comment(f"VAE Lab: {bypassed}. So {effect}. Reload UI to have VAE Lab follow generations again.")

    def _begin(self, p: Any, job: Job, args: Sequence[Any]) -> None:
        """What a user on the page gets is an image, with a comment; a cell of the plot and the API get an error."""
        choice = Choice(AUTOMATIC, "generation")
        try:
            plan = Plan.from_args(args)
            choice = resolve(self.host.standing_choices_when_loaded(), plan.override, chosen_by_axis(p))
            job.compare = plan.compare
            job.on_grey = plan.on_grey or on_grey()
            if job.names_vae or (job.inherits and choice.source != "generation"):
                return
            job.explicit = choice.source == "generation"
            if choice.vae != AUTOMATIC:
                self._override(p, job, choice)
        except VaeLabError as error:
            asked_by_api = getattr(p, "is_api", False) and not asks_to_fall_back(args)
            if choice.source == "generation" and (asked_by_api or chosen_by_axis(p) is not None):
                job.stop(error)
            else:
                job.comment_refused(error)

    def _override(self, p: Any, job: Job, choice: Choice) -> None:
        vae = choice.vae
        method = decode_method()
        if method != "Full":
            p.comment(
                f"VAE Lab: {vae} does not decode this image, because Settings > VAE > VAE type for decode "
                f"is {method}; set it to Full."
            )
        job.override(lambda: self.host.weights(vae))
        self._say_overruled(p, choice)

    def _say_overruled(self, p: Any, choice: Choice) -> None:
        """If the generation names a VAE in the host's way: pasted, by the plot's axis VAE, or over the API."""
        named = self.host.vae.named_by(p)
        decision = self.host.decision_for(choice)
        name = "None" if choice.vae == BUILT_IN else Path(decision.path).name
        if named and name not in named:
            p.comment(
                f"VAE Lab: {', '.join(named)}, named as SD VAE for this generation, has no effect, because VAE Lab's "
                f"choice comes first. {decision.reason}"
            )

    def pasted(self, parameters: Mapping[str, Any]) -> tuple[str, str]:
        """The accordion's choice for pasted generation parameters, and what is wrong with it, or "".

        By name, else by weights, else Automatic.
        """
        name = parameters.get(OVERRIDE_KEY)
        if not name:
            return AUTOMATIC, ""
        files = {name: str(path) for name, path in self.host.listing(fresh=True).vaes.items()}
        digest = parameters.get(HASH_KEY, "")
        if name in files:
            self.host.file_cache.identify(files[name])
        if name == BUILT_IN or (name in files and (not digest or self._has_digest(files[name], digest))):
            return name, ""
        same_weights = next((vae for vae, path in files.items() if digest and self._has_digest(path, digest)), None)
        if same_weights:
            return same_weights, ""
        if name in files:
            return name, f"The image was decoded by another VAE named {name} ({digest}), which is not among your VAEs"
        known = f"{name} ({digest})" if digest else name
        reason = f"The image was decoded by {known}, which is not among your VAEs"
        return NotHere(reason), reason

    def _has_digest(self, path: str, digest: str) -> bool:
        facts = self.host.file_cache.known(path)
        return facts is not None and short(facts.fingerprint) == digest
