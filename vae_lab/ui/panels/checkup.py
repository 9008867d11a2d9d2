"""The panel that checks the VAEs of checkpoints and files, shows how they decode a chart, and offers a remedy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from vae_lab.checkup import Verdict
from vae_lab.checkup.findings import MISSING
from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.choices import BUILT_IN, Decision, Reach
from vae_lab.library import FileRecord
from vae_lab.messages import text, translated
from vae_lab.service.downloads import DownloadPlan
from vae_lab.service.service import service_of
from vae_lab.ui.compat import choice_update, connect, follow, html_update
from vae_lab.ui.panels.bake import UPDATES, BakeSection
from vae_lab.ui.panels.picks import Pick
from vae_lab.ui.views import checkup as checkup_views
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import downloads as download_views

__all__ = ["CheckupPanel", "build_checkup_panel"]

_SEPARATOR = " · "
_REMEDY = 5  # of which offer a remedy
_SHOWN = 5 + _REMEDY + UPDATES  # components before the state in what handlers update


@dataclass(frozen=True)
class _PageState:
    """What one browser page showed last.

    Attributes:
        current: the checkpoint in use at that time, or "".
        remedy: the VAE that the buttons named, or "".
        checkpoint: the checkpoint that was shown, into a copy of which a VAE can be baked, or "".
        download: the published VAE that the button named, or "".
    """

    current: str = ""
    remedy: str = ""
    checkpoint: str = ""
    download: str = ""


@dataclass(frozen=True)
class _Remedy:
    """What is offered for the checkpoint in use.

    Attributes:
        text: HTML; "" where nothing is wrong.
        vae: the VAE on the buttons, or "" for no buttons.
        for_checkpoint, always: whether that button is shown; it is not if the same is chosen already.
        plan: what that button would download; None for no button.
    """

    text: str = ""
    vae: str = ""
    for_checkpoint: bool = False
    always: bool = False
    plan: DownloadPlan | None = None

    @property
    def download(self) -> str:
        """Name of what would be downloaded, or ""."""
        return self.plan.published.name if self.plan else ""


class CheckupPanel:
    """Layout and behaviour. Handlers return one update for each of their outputs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service = service_of(host)
        self.bake = BakeSection(host)
        self._asked = itertools.count()

    # --- layout ----------------------------------------------------------------------------------------------

    def build(self, picked: gr.Textbox) -> None:
        """Add the panel to the current Blocks.

        Args:
            picked: see :func:`vae_lab.ui.panels.picks.pick_field`.
        """
        names = self._names()
        chosen = next(iter(names), "")
        with gr.Column(elem_id="vae_lab_checkup", elem_classes=["vae-lab"]):
            self._build_choice(names, chosen)
            with gr.Row(elem_classes=["vae-lab-running"]):
                gr.HTML(views.PROGRESS, elem_id="vae_lab_checkup_progress")
                gr.Button("Cancel", variant="stop", size="sm", scale=0, min_width=100, elem_id="vae_lab_checkup_cancel")
            self.message = gr.HTML(elem_id="vae_lab_checkup_message")
            self.overview = gr.HTML(visible=False, elem_id="vae_lab_checkup_overview")
            with gr.Row(elem_classes=["vae-lab-card"]):
                with gr.Column(scale=3, min_width=320, elem_classes=["vae-lab-said"]):
                    self.verdict = gr.HTML(checkup_views.unchecked(chosen), elem_id="vae_lab_checkup_verdict")
                    self._build_remedy()
                self.charts = gr.HTML(visible=False, elem_id="vae_lab_checkup_charts")
            self.bake.build()
            self.details = gr.HTML(visible=False, elem_id="vae_lab_checkup_details")
            self.state = gr.State(None)
            # Separate states, so that a run does not overwrite what is chosen or undone while it is active.
            self.ended = gr.State("")  # the result of a run
            self.whole = gr.State(False)  # the table of all files is shown
        self.file.do_not_save_to_config = True  # the WebUI would store today's list as the default of later starts
        self._wire(picked)

    def _build_choice(self, names: Sequence[str], chosen: str) -> None:
        with gr.Row(elem_classes=["vae-lab-top"]):
            self.file = gr.Dropdown(
                self._choices(names), value=self._choice(chosen) if chosen else None, scale=4, min_width=320,
                label="Checkpoint or VAE to check", elem_id="vae_lab_checkup_file",
            )  # fmt: skip
            self.check = gr.Button("Check", variant="primary", scale=0, min_width=140, elem_id="vae_lab_checkup_check")
            self.check_all = gr.Button("Check all", scale=0, min_width=140, elem_id="vae_lab_checkup_check_all")
            self.refresh = gr.Button("Refresh", scale=0, min_width=100, elem_id="vae_lab_checkup_refresh")

    def _build_remedy(self) -> None:
        self.remedy = gr.HTML(visible=False, elem_id="vae_lab_checkup_remedy")
        with gr.Row(elem_classes=["vae-lab-remedies"]):
            self.for_checkpoint = gr.Button(
                "Use for this checkpoint", variant="primary", visible=False, min_width=200,
                elem_id="vae_lab_checkup_use_for_checkpoint",
            )  # fmt: skip
            self.always = gr.Button("Use always", visible=False, min_width=160, elem_id="vae_lab_checkup_use_always")
            self.download = gr.Button(
                "Download", variant="primary", visible=False, min_width=240, elem_id="vae_lab_checkup_download"
            )
        self.said = gr.HTML(visible=False, elem_id="vae_lab_checkup_said")
        self.deciding = gr.HTML(visible=False, elem_id="vae_lab_checkup_deciding")

    def _wire(self, picked: gr.Textbox) -> None:
        remedy = [self.remedy, self.for_checkpoint, self.always, self.download, self.deciding]
        content = [self.overview, self.verdict, self.charts, self.details, *self.bake.shown, *remedy]
        shown = [self.file, *content, self.state]
        everything = [*shown, self.message, self.said]
        inputs = [self.file, self.state, self.whole]
        connect(self.refresh.click, self.on_refresh, inputs, everything)
        follow([self.file.input], self.on_file, [self.file], [self.state, self.whole], everything)
        follow([picked.input], self.on_picked, [picked], inputs, everything)
        checked = connect(self.check.click, self.on_check, [self.file], [self.ended])
        all_checked = connect(self.check_all.click, self.on_check_all, [], [self.ended, self.whole])
        baked = self.bake.wire(self.state, self.ended)
        downloaded = connect(self.download.click, self.on_download, [self.state], [self.ended])
        for run in (checked, all_checked, downloaded):
            connect(run.then, self.on_checked, [self.ended, *inputs], everything)
        connect(baked.then, self.on_ended, [self.ended, *inputs], everything)
        chosen = [self.verdict, *remedy, self.state, self.said]
        connect(self.for_checkpoint.click, self.on_use_for_checkpoint, [self.state], chosen)
        connect(self.always.click, self.on_use_always, [self.state], chosen)
        # Cancel and the progress bar belong to javascript/tab/runs.mjs: they must work while a handler here blocks.
        # So does Undo: it uses the routes, and presses Refresh.

    # --- the menu of files ------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        """All files: the checkpoint in use, other checkpoints, VAEs."""
        current = self.host.current_checkpoint()
        first = [current] if current else []
        return list(dict.fromkeys([*first, *self.host.checkpoints(), *(entry.name for entry in self.host.vaes())]))

    def _choices(self, names: Sequence[str]) -> list[str]:
        files = {**self.host.checkpoint_files(), **self.host.vae_files()}
        known = self.host.known_verdicts({name: files[name] for name in names if name in files})
        current = self.host.current_checkpoint()
        return [_label(name, known.get(name), name == current) for name in names]

    def _choice(self, name: str) -> str:
        return self._choices([name])[0]

    def _followed(self, choice: str | None, state: _PageState | None, names: Sequence[str]) -> str:
        """The file to show; if it was the checkpoint in use, the one in use now."""
        chosen, current = _name_of(choice, names), self.host.current_checkpoint()
        return current if state is None or chosen in ("", state.current) else chosen

    # --- content ---------------------------------------------------------------------------------------------

    def _show(
        self, chosen: str, shown: str | None, whole: bool, names: Sequence[str], kept: str = ""
    ) -> tuple[Any, ...]:
        """Updates for everything but messages.

        Args:
            chosen: name of the file.
            shown: the menu's present value.
            whole: with the table of all files.
            names: of all files.
            kept: the checkpoint for which the fields of Bake are filled already.
        """
        current = self.host.current_checkpoint()
        known = self.host.known_reports(names if whole else [chosen])
        report = known.get(chosen)
        remedy = self._remedy(chosen, report)
        checkpoint = chosen if chosen in self.host.checkpoint_files() else ""
        return (
            choice_update(self._choices(names), self._choice(chosen) if chosen else None, shown),
            html_update(checkup_views.overview(names, known, current) if whole else ""),
            self._verdict(chosen, report),
            html_update(checkup_views.charts(report) if report else ""),
            html_update(checkup_views.details(report) if report else ""),
            *(self.bake.show(checkpoint) if checkpoint != kept else [gr.update()] * UPDATES),
            *self._remedy_updates(remedy, chosen),
            _PageState(current, remedy.vae, checkpoint, remedy.download),
        )

    def _verdict(self, name: str, report: FileRecord | None) -> str:
        if report is None:
            return checkup_views.unchecked(name)
        current = name == self.host.current_checkpoint()
        text = checkup_views.verdict(name, report, current)
        if not current:
            return text + self._how_to_be_offered_more(report)
        if report.verdict.status == MISSING:
            text += checkup_views.used_instead(self.host.used_instead())
        decision, in_memory = self.host.decision(), self.host.memory_checkup()
        if report.verdict.faults and self._decides_well(decision, report):
            text = checkup_views.remedied(decision.vae) + text
        # If another VAE has been chosen since that checkup, this one is no longer in memory.
        return text + (checkup_views.in_memory(in_memory) if in_memory and in_memory.name == decision.vae else "")

    def _how_to_be_offered_more(self, report: FileRecord) -> str:
        if report.kind != "checkpoint" or not report.verdict.faults:
            return ""
        return checkup_views.aside(
            text("Select this checkpoint on the Compare page to get a replacement VAE here.")
            if self.host.chooses_checkpoint
            else text("Load this checkpoint to get a replacement VAE here.")
        )

    def _remedy(self, chosen: str, report: FileRecord | None) -> _Remedy:
        """What to offer: nothing for other files, healthy ones, or if a healthy external VAE is used already."""
        if report is None or chosen != self.host.current_checkpoint() or not report.verdict.faults:
            return _Remedy()
        decision, found = self.host.decision(), self.host.recommendation()
        already = self._decides_well(decision, report)
        if already:
            again = found is not None and decision.vae == found.name and decision.source != "always"
            return _Remedy(vae=decision.vae if again else "", always=again)
        if found is None:
            plan = self.service.downloads.plan(report.model_family)
            if plan is not None:
                return _Remedy(download_views.offered(plan), plan=plan)
            return _Remedy(checkup_views.aside(checkup_views.kind_to_get(report.model_family)))
        # A choice for every checkpoint takes precedence, so one for this checkpoint would change nothing.
        return _Remedy(
            checkup_views.recommended(found), found.name, for_checkpoint=decision.source != "always", always=True
        )

    def _decides_well(self, decision: Decision, report: FileRecord) -> bool:
        """An external VAE decodes, and is known to be healthy and of the checkpoint's family."""
        chosen = self.host.known_reports([decision.vae]).get(decision.vae) if decision.vae != BUILT_IN else None
        if chosen is None or not chosen.can_replace:
            return False
        return chosen.family is None or report.model_family is None or chosen.family.id == report.model_family.id

    def _remedy_updates(self, remedy: _Remedy, chosen: str) -> tuple[Any, ...]:
        """For the sentence, the buttons and the deciding line."""
        current = bool(chosen) and chosen == self.host.current_checkpoint()
        return (
            html_update(remedy.text),
            gr.update(value=text("Use {vae} for this checkpoint", vae=remedy.vae), visible=remedy.for_checkpoint),
            gr.update(value=text("Use {vae} always", vae=remedy.vae), visible=remedy.always),
            gr.update(value=download_views.button(remedy.plan), visible=remedy.plan is not None),
            html_update(self._deciding() if current else ""),
        )

    def _deciding(self) -> str:
        active = self.service.choices.active()
        built_in = active.decision.vae == BUILT_IN
        return views.deciding(active.decision.reason, next(self._asked), built_in_decodes=built_in, mark=active.mark)

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, choice: str | None, state: _PageState | None, whole: bool) -> tuple[Any, ...]:
        """Show what the host has now. The message about a choice stays until the checkpoint changes."""
        self.host.listing(fresh=True)
        updates = self._updates(lambda names: self._followed(choice, state, names), choice, state, whole, gr.update())
        same = state is not None and state.current == self.host.current_checkpoint()
        return (*updates[:-1], gr.update()) if same else updates

    def on_file(self, choice: str | None, state: _PageState | None, whole: bool) -> tuple[Any, ...]:
        """Another file was selected: show what is known about it."""
        return self._updates(lambda names: _name_of(choice, names), choice, state, whole, html_update(""))

    def on_picked(self, picked: str, choice: str | None, state: _PageState | None, whole: bool) -> tuple[Any, ...]:
        """A row of the table was clicked."""
        try:
            pick = Pick.read(picked)
        except VaeLabError as error:
            return self._failed(error, state)
        if pick.kind != "file":
            return (*[gr.update()] * _SHOWN, state, gr.update(), gr.update())
        return self._updates(lambda names: pick.name if pick.name in names else "", choice, state, whole, gr.update())

    def on_check(self, choice: str | None) -> str:
        """Check the selected file."""
        self.host.listing(fresh=True)
        chosen = _name_of(choice, self._names())
        missing = f"{choice} no longer exists; choose another file" if choice else "there is no file to check"
        return self._run([chosen] if chosen else [], missing)

    def on_check_all(self) -> tuple[Any, ...]:
        """Check all files, and show the table."""
        self.host.listing(fresh=True)
        return self._run(self._names(), "there is no file to check"), True

    def _run(self, names: Sequence[str], if_none: str) -> str:
        try:
            if not names:
                raise HostError(if_none)
            return checkup_views.checked(self.service.checkups.inspect(names, fresh=False), len(names))
        except VaeLabError as error:
            return views.alert(error)

    def on_download(self, state: _PageState | None) -> str:
        """Download the VAE that the button names, and check it."""
        try:
            return download_views.downloaded(self.service.downloads.download(state.download if state else ""))
        except VaeLabError as error:
            return views.alert(error)

    def on_checked(self, ended: str, choice: str | None, state: _PageState | None, whole: bool) -> tuple[Any, ...]:
        """As :meth:`on_ended`. Another VAE may be recommended now, so the fields of Bake are filled again."""
        return self.on_ended(ended, choice, replace(state, checkpoint="") if state else None, whole)

    def on_ended(self, ended: str, choice: str | None, state: _PageState | None, whole: bool) -> tuple[Any, ...]:
        """Report the result of a run, and show what is now known about the selected file."""
        updates = self._updates(lambda names: _name_of(choice, names), choice, state, whole, html_update(ended))
        return (*updates[:-1], gr.update())  # a message about a choice during the run stays, with its Undo

    def _updates(
        self,
        choose: Callable[[Sequence[str]], str],
        shown: str | None,
        state: _PageState | None,
        whole: bool,
        message: Any,
    ) -> tuple[Any, ...]:
        """Updates for everything, about the file that ``choose`` picks from all names, else the checkpoint in use."""
        try:
            names = self._names()
            chosen = choose(names) or next(iter(names), "")
            kept = state.checkpoint if state else ""
            return (*self._show(chosen, shown, whole, names, kept), message, html_update(""))
        except VaeLabError as error:
            return self._failed(error, state)

    def _failed(self, error: VaeLabError, state: _PageState | None) -> tuple[Any, ...]:
        """Nothing changes but the message."""
        return (*[gr.update()] * _SHOWN, state, html_update(views.alert(error)), html_update(""))

    def on_use_for_checkpoint(self, state: _PageState | None) -> tuple[Any, ...]:
        """Use the recommended VAE for the current checkpoint from now on."""
        return self._use("checkpoint", state)

    def on_use_always(self, state: _PageState | None) -> tuple[Any, ...]:
        """Use the recommended VAE for every checkpoint from now on."""
        return self._use("always", state)

    def _use(self, reach: Reach, state: _PageState | None) -> tuple[Any, ...]:
        state = state or _PageState()
        if not state.remedy:  # a second click: it is chosen already
            return (*[gr.update()] * (1 + _REMEDY), state, gr.update())
        try:
            current = self.host.current_checkpoint()
            if state.current != current:
                raise HostError("the checkpoint has changed since; press Refresh")
            result = self.service.choices.choose(reach, state.remedy, current)
            report = self.host.known_reports([current]).get(current)
            remedy = self._remedy(current, report)
            updates = (self._verdict(current, report), *self._remedy_updates(remedy, current))
        except VaeLabError as error:
            return (*[gr.update()] * (1 + _REMEDY), state, html_update(views.alert(error)))
        said = views.message(text("Done. {sentence}", sentence=result.message), undo_id=result.undo_id)
        return (*updates, replace(state, remedy=remedy.vae), html_update(said))


def _label(name: str, verdict: Verdict | None, current: bool) -> str:
    """The menu entry of a file: its unique name, and what is known about it.

    It is also the value of the entry: gradio 3 shows the value in place of the label after an update.
    """
    notes = [translated("checkpoint in use")] if current else []
    if verdict is not None:
        notes.append(checkup_views.mark(verdict))
    return _SEPARATOR.join([name, *notes])


def _name_of(choice: str | None, names: Sequence[str]) -> str:
    """The file listed as ``choice``, whatever was known about it when the list was made; "" if it no longer exists."""
    entry = choice or ""
    matching = [name for name in names if entry == name or entry.startswith(f"{name}{_SEPARATOR}")]
    return max(matching, key=len, default="")


def build_checkup_panel(host: Host, picked: gr.Textbox) -> CheckupPanel:
    """Add the panel to the current Blocks; for ``picked`` see :meth:`CheckupPanel.build`."""
    panel = CheckupPanel(host)
    panel.build(picked)
    return panel
