"""Follow the WebUI's generations: one job for each, and capture their latents just before decoding."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from fastapi import HTTPException
from modules import devices, processing, scripts, sd_models, shared
from PIL import Image
from torch import Tensor

from vae_lab.comparison import Comparison, error_tile
from vae_lab.host.guard import guarded
from vae_lab.host.infotext import with_override
from vae_lab.latents import Generation
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.grey_watch import GreyWatch
from vae_lab.webui.job import Captured, Job, Refused
from vae_lab.webui.own_choice import decode_method
from vae_lab.webui.patching import patch
from vae_lab.webui.preferences import store_bytes
from vae_lab.webui.xyz_axis import chosen_by_axis

__all__ = ["Jobs"]


class _Script(NamedTuple):
    """A script of the "Script" menu that is running.

    Attributes:
        title: as in the menu.
        saves: whether the user wants its images to be saved.
        group: of the latents of its tiles.
    """

    title: str
    saves: bool
    group: str

    @classmethod
    def of(cls, group: str, runner: Any, p: Any, chosen: int | None = 0, *_: Any) -> _Script | None:
        """From the arguments of the host's ``ScriptRunner.run``; None if no script is chosen."""
        if not chosen:
            return None
        return cls(runner.selectable_scripts[chosen - 1].title(), not getattr(p, "do_not_save_samples", False), group)


class Jobs:
    """The active jobs, innermost last: a script may start a generation inside another one.

    Args:
        host: where they run.
        undo: closed when the scripts are unloaded.
        checkpoint_changed: called after a generation that ended with another checkpoint than the one before. The host
            itself reports checkpoints that it loads, but not those that it still has in memory.
    """

    def __init__(self, host: A1111Host, undo: ExitStack, checkpoint_changed: Callable[[], None]) -> None:
        self.host = host
        self._checkpoint_changed = checkpoint_changed
        self._checkpoint = ""
        self.watch = GreyWatch(host)
        self._jobs: list[Job] = []
        self._refused = ""  # the API request that is being answered; why
        self._script: _Script | None = None
        self._groups = itertools.count(1)
        self._follows = patch(processing, "process_images_inner", self._around_generation, undo)
        self._sees_decodes = patch(processing, "decode_latent_batch", self._around_decode, undo)
        patch(processing.Processed, "js", _with_comments, undo)
        patch(scripts.ScriptRunner, "run", self._around_script, undo)

    def job_of(self, p: Any) -> Job | None:
        """The job of ``p``, if ``p`` is being generated now."""
        return next((job for job in reversed(self._jobs) if job.p is p), None)

    def bypassed_by(self) -> str:
        """Who keeps us from following the generation that begins now, as one sentence; "" if nobody.

        An extension may have put a function back that it saved before we came.
        """
        if self._jobs or self._follows():
            return ""
        return _replaced("process_images_inner")

    def _around_generation(self, original: Callable[..., Any], p: Any, *args: Any, **kwargs: Any) -> Any:
        job = Job(p, self.host.vae, self.host.own_name, self._jobs[-1] if self._jobs else None)
        self._jobs.append(job)
        with guarded("following a generation inside another one"):
            job.begin()
        with guarded("looking where the generation belongs"):
            job.part, job.group = self._belongs(job)
        try:
            processed = original(p, *args, **kwargs)
        except Refused as refused:
            self._finish(job, None)
            if chosen_by_axis(p) is not None:
                return _tile(p, str(refused))
            self._refused = str(refused)
            raise HTTPException(422, self._refused) from refused
        except BaseException:
            self._finish(job, None)
            raise
        self._finish(job, processed)
        with guarded("looking for the decode"):
            if processed.images and not job.sees_decodes and not self._sees_decodes():
                processed.comments += (
                    f"VAE Lab: {_replaced('decode_latent_batch')}. So the latents of this image are not stored, and "
                    "nothing is said about its VAE. Reload UI to have VAE Lab see them again.\n"
                )
        return processed

    def _around_script(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Of the "Script" menu. Some go on after an error, such as the plot, but the API request was refused."""
        self._refused = ""
        with guarded("following a script"):
            self._script = _Script.of(str(next(self._groups)), *args)
        try:
            processed = original(*args, **kwargs)
        finally:
            self._script = None
        if self._refused:
            raise HTTPException(422, self._refused)
        return processed

    def _belongs(self, job: Job) -> tuple[str, str]:
        """What part of an image it is, and its group: images that a script does not want saved are tiles of one."""
        if job.outer is not None:
            return "inside another image", job.outer.group
        script = self._script
        if script is not None and script.saves and getattr(job.p, "do_not_save_samples", False):
            return f"tile of {script.title}", script.group
        return "", str(next(self._groups))

    def _finish(self, job: Job, processed: Any) -> None:
        """Close the job first: whatever fails afterwards, the host has its own VAE again."""
        try:
            with guarded("restoring the VAE"):
                job.close()
        finally:
            with guarded("restoring the VAE"):
                job.close()  # what the first attempt has left; else nothing
            self._jobs.remove(job)
        with guarded("storing the latents"):
            self._file(job, processed)
        with guarded("following the checkpoint"):
            self._follow_checkpoint()

    def _follow_checkpoint(self) -> None:
        before, self._checkpoint = self._checkpoint, self.host.vae.path()
        if before != self._checkpoint:
            self._checkpoint_changed()

    def _around_decode(self, original: Callable[..., Any], model: Any, batch: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Capture the latents before they are decoded, in case that fails, and watch the output."""
        job, decoder = None, ""
        for current in self._jobs[-1:]:
            current.sees_decodes = True
        with guarded("following a decode"):
            own = bool(self._jobs) and not self._jobs[-1].between_batches and model is sd_models.model_data.sd_model
            job, decoder = (self._jobs[-1], _decoder()) if own else (None, "")
        if job is None:
            return original(model, batch, *args, **kwargs)
        with guarded("capturing the latents"):
            self._capture(job, batch, decoder)
        with guarded("naming the VAE that decodes"):
            if decoder == "Full":
                job.update_infotext()
            else:
                job.retract()
        if decoder != "Full":
            return original(model, batch, *args, **kwargs)
        return self._watched(job, batch, lambda: original(model, batch, *args, **kwargs))

    def _capture(self, job: Job, batch: Tensor, decoder: str) -> None:
        """Hires fix decodes twice for one iteration; the later, final one replaces the earlier."""
        with torch.inference_mode(False):  # Forge samples in it; such tensors could never be changed
            latents = batch.detach().float().to("cpu", copy=True)
        vae = self.host.vae
        captured = Captured(latents, decoder, vae.family(), vae.path(), bool(job.p.tiling))
        job.capture(getattr(job.p, "iteration", 0), captured, store_bytes())

    def _watched(self, job: Job, latents: Tensor, decode: Callable[[], Any]) -> Any:
        try:
            decoded = decode()
        except devices.NansException:
            if latents.isfinite().all():  # else caused by the model, not by the VAE
                with guarded("decoding again", job.p.comment):
                    return self.watch.after_failure(job, decode)
            raise
        with guarded("watching the image", job.p.comment):
            return self.watch.after_decode(job, latents, decoded, decode)
        return decoded

    def _file(self, job: Job, processed: Any) -> None:
        """Store each iteration as a generation, with the checkpoint that it was decoded with."""
        self.host.generations.max_bytes = store_bytes()
        # Other extensions may have taken the texts away.
        texts = processed.infotexts or [] if processed is not None else []
        infotexts = list(texts[processed.index_of_first_image :]) if texts else []
        comparing = processed is not None and bool(job.compare) and not self._inside_something(job)
        done = 0
        for iteration, batch in sorted(job.images.items()):
            captured = job.captured.get(iteration)
            generation = captured and self._generation(job, captured, tuple(infotexts[done : done + batch]))
            if generation is not None:
                self.host.generations.add(generation)
                if comparing:
                    self._compare(job, generation, processed)
            done += batch
        discarded = len(job.images) - len(job.captured)
        if comparing and discarded:
            processed.comments += (
                f"VAE Lab: {discarded} of {len(job.images)} batches were not decoded with other VAEs: "
                "their latents were discarded, see Settings > VAE Lab > Memory for the latents.\n"
            )

    def _inside_something(self, job: Job) -> bool:
        """Whether a script of the "Script" menu, or another generation, expects exactly these images."""
        chosen_script = next(iter(job.p.script_args or ()), 0)
        return bool(self._jobs) or chosen_script != 0

    def _generation(self, job: Job, captured: Captured, infotexts: tuple[str, ...]) -> Generation | None:
        """An iteration as a stored generation; None if its family is unknown."""
        family = captured.family
        if family is None or captured.latents.shape[1] != family.latent_channels:
            return None
        prompt = job.p.prompt[0] if isinstance(job.p.prompt, list) else job.p.prompt
        return Generation(
            id=self.host.generations.new_id(),
            latents=captured.latents,
            family=family,
            title=str(prompt or "").strip().replace("\n", " ")[:80],
            infotexts=infotexts,
            checkpoint=captured.checkpoint,
            decoded_by=captured.decoder,
            tiling=captured.tiling,
            part=job.part,
            group=job.group,
        )

    def _compare(self, job: Job, generation: Generation, processed: Any) -> None:
        """Add the images of the other VAEs after the host's own, each with an infotext that names its VAE."""

        def report(line: str) -> None:
            processed.comments += f"{line}\n"

        with guarded("comparing VAEs", report):
            comparison = self.host.compare_in_job(
                generation, job.compare, cancelled=lambda: shared.state.interrupted or shared.state.skipped
            )
            _append(comparison, generation, processed, self.host)
            for result in comparison:
                if result.error:
                    report(f"VAE Lab: {result.error}")


def _tile(p: Any, reason: str) -> Any:
    """What the plot gets instead of an image: else its tile would be black, and the reason only in the log."""
    tile = error_tile(f"VAE Lab: {reason}", p.width, p.height)
    return processing.Processed(p, [tile], p.all_seeds[0], f"VAE Lab: {reason}")


def _with_comments(original: Callable[[Any], str], processed: Any) -> str:
    """The ``info`` of an API answer; the host shows comments on its page only."""
    info = original(processed)
    with guarded("adding the comments to the answer"):
        if processed.comments:
            return json.dumps({"comments": processed.comments} | json.loads(info))
    return info


def _replaced(name: str) -> str:
    """Who has replaced a function of the host that we had wrapped, as far as it can be seen."""
    owner = getattr(getattr(processing, name), "__module__", None)
    if owner in (None, "modules.processing"):
        return f"another extension has put back {name} as it was before VAE Lab was loaded"
    return f"another extension ({owner}) has replaced {name}, and bypasses VAE Lab"


def _decoder() -> str:
    """What the host decodes with: ``Full`` is the VAE, everything else an approximation without it."""
    if shared.state.interrupted and getattr(shared.opts, "live_preview_fast_interrupt", False):
        return f"{getattr(shared.opts, 'show_progress_type', 'an approximation')}, because of the interrupt"
    return decode_method()


def _append(comparison: Comparison, generation: Generation, processed: Any, host: A1111Host) -> None:
    # The host's masks, and images of other extensions, may have no infotext.
    processed.infotexts = list(processed.infotexts or [])
    processed.infotexts += [processed.info] * (len(processed.images) - len(processed.infotexts))
    for result in comparison.decoded:
        assert result.images is not None
        for i, pixels in enumerate(result.images):
            base = generation.infotexts[i] if i < len(generation.infotexts) else processed.info
            text = with_override(base, result.name, host.digest(result.name, generation))
            image = Image.fromarray(pixels)
            if getattr(shared.opts, "enable_pnginfo", True):
                image.info["parameters"] = text
            processed.images.append(image)
            processed.infotexts.append(text)
