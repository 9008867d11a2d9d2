"""What a comparison gave: the answer, the images, and the numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from vae_lab.errors import VaeLabError
from vae_lab.host.base import Host
from vae_lab.service import answers
from vae_lab.service.comparisons import StoredComparison
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, html_update
from vae_lab.ui.views import answers as answer_views
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import numbers as numbers_views

__all__ = ["ComparisonResults"]


@dataclass(frozen=True)
class _Shown:
    """Which images one browser page shows.

    Attributes:
        id: of the comparison, or "".
        token: see :func:`views.token`.
        running: whether more images are to come.
    """

    id: str = ""
    token: str = ""
    running: bool = False


@dataclass(frozen=True)
class _Judged:
    """What one browser page says about them. Apart from :class:`_Shown`, because both can change at once.

    Attributes:
        numbered: id of the comparison, and reference of its numbers.
        reference: the VAE that the user chose to compare with, or "".
        answer: its HTML.
    """

    numbered: str = ""
    reference: str = ""
    answer: str = ""


class ComparisonResults:
    """Layout and behaviour. Handlers return one update for each of their outputs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service = service_of(host)

    def build(self) -> None:
        """Add it to the current Blocks."""
        self.answer = gr.HTML(visible=False, elem_id="vae_lab_answer")
        self.images = gr.HTML(views.guide(), elem_id="vae_lab_results")
        self.reference = gr.Dropdown([], label="Compare numbers with", visible=False, elem_id="vae_lab_reference")
        self.reference.do_not_save_to_config = True  # the WebUI would store today's list as a default
        self.numbers = gr.HTML(elem_id="vae_lab_numbers")
        with gr.Row(elem_classes=["vae-lab-scripted"]):  # pressed by javascript/tab/comparisons.mjs
            self.show = gr.Button("Show", elem_id="vae_lab_show")
            self.judge = gr.Button("Judge", elem_id="vae_lab_judge")
        self.shown, self.judged = gr.State(_Shown()), gr.State(_Judged())

    def follow(self, compared: Any, refreshed: Any) -> None:
        """Show results after these events: a comparison has ended, the page was refreshed."""
        shown = [self.images, self.shown]
        # During a run, the scripts press Show whenever there is another image.
        events = (
            connect(compared.then, self.on_show, [self.shown], shown),
            connect(self.show.click, self.on_show, [self.shown], shown),
            connect(refreshed.then, self.on_reopen, [self.shown], shown),
        )
        known, judged = [self.shown, self.judged], [self.numbers, self.reference, self.answer, self.judged]
        # As soon as there is another verdict, the scripts press Judge.
        for event in (*(event.then for event in events), self.judge.click):
            connect(event, self.on_judge, known, judged)
        connect(self.reference.input, self.on_reference, [self.reference, *known], judged)

    def on_show(self, shown: _Shown) -> tuple[Any, ...]:
        """Show the newest comparison, as far as it is. The scripts hide what is said about another one."""
        stored = self.service.comparisons.shown
        if stored is None:  # the first one has failed, after images of it were shown
            return (views.guide(), _Shown()) if shown.running else (gr.update(), shown)
        token = views.token(stored)
        if token == shown.token:
            return gr.update(), shown
        return views.results(stored), _Shown(stored.id, token, stored.running)

    def on_reopen(self, shown: _Shown) -> tuple[Any, ...]:
        """On a page that was just loaded: the last comparison, or what there is of one that is running."""
        return self.on_show(shown) if not shown.id or shown.running else (gr.update(), shown)

    def on_judge(self, shown: _Shown, judged: _Judged) -> tuple[Any, ...]:
        """Below and above the images: the numbers, and the answer by all verdicts that are known by now."""
        if not shown.id or shown.running:
            return gr.update(), gr.update(), gr.update(), judged
        try:
            stored = self.service.comparisons.get(shown.id)
        except VaeLabError as error:
            return views.alert(error), gr.update(), gr.update(), replace(judged, numbered="")
        return self._judged(stored, judged)

    def on_reference(self, reference: str, shown: _Shown, judged: _Judged) -> tuple[Any, ...]:
        """The numbers, compared with another VAE."""
        return self.on_judge(shown, replace(judged, reference=reference))

    def _judged(self, stored: StoredComparison, judged: _Judged) -> tuple[Any, ...]:
        names = [result.name for result in stored.comparison.decoded]
        checkups, found = self.service.checkups, answers.answer(self.host, stored)
        if not judged.numbered.startswith(stored.id):
            checkups.check_soon(answers.to_check(self.host, stored, found))
        reference = judged.reference if judged.reference in names else answers.default_reference(found, stored)
        numbered, numbers, menu = f"{stored.id} {reference}", gr.update(), gr.update()
        if numbered != judged.numbered:
            numbers = numbers_views.numbers(stored, reference)
            menu = gr.update(choices=names, value=reference or None, visible=len(names) > 1)
        html = answer_views.answer(found, stored, reference, waiting=bool(checkups.waiting))
        # What is the same is not sent: it would take away what the user just did there.
        sent = gr.update() if html == judged.answer else html_update(html)
        return numbers, menu, sent, replace(judged, numbered=numbered, answer=html)
