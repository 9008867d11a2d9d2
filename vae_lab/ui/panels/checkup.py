"""The panel that looks at the VAEs of checkpoints and files, shows what they do to a chart, and offers a remedy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from vae_lab.checkup import Verdict
from vae_lab.checkup.findings import HEALTHY, MISSING
from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import BUILT_IN, Decision, Host
from vae_lab.library import FileRecord
from vae_lab.service.service import ComparisonService, service_of
from vae_lab.ui.compat import choice_update, connect, follow, html_update
from vae_lab.ui.panels.selection import Choice, choose_to_stay
from vae_lab.ui.views import checkup as checkup_views
from vae_lab.ui.views import comparison as views

__all__ = ["CheckupPanel", "build_checkup_panel"]

_SEPARATOR = " · "


@dataclass(frozen=True)
class _Memory:
    """What one browser page showed last.

    Attributes:
        current: the checkpoint in use then, or "".
        remedy: the VAE that the buttons named, or "".
        back: what Undo would choose again.
    """

    current: str = ""
    remedy: str = ""
    back: Choice | None = None


@dataclass(frozen=True)
class _Remedy:
    """What is offered for the checkpoint in use.

    Attributes:
        text: HTML; "" where nothing is wrong.
        vae: the VAE on the buttons, or "" for no buttons.
        for_checkpoint, always: whether that button is shown: what is chosen already need not be chosen again.
    """

    text: str = ""
    vae: str = ""
    for_checkpoint: bool = False
    always: bool = False


class CheckupPanel:
    """Layout and behaviour. Handlers return one update for each output that they are wired to."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service: ComparisonService = service_of(host)
        self._asked = itertools.count()

    # --- layout ----------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Add the panel to the Blocks that is being built."""
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
            self.details = gr.HTML(visible=False, elem_id="vae_lab_checkup_details")
            self.memory = gr.State(None)
            # Apart from the memory: what is chosen or taken back during a run must outlive it.
            self.ended = gr.State("")  # how a run went
            self.whole = gr.State(False)  # the table of all files is shown
        # The WebUI would store lists of today as everyone's defaults of tomorrow.
        for component in (self.file, self.picked, self.undo):
            component.do_not_save_to_config = True
        self._wire()

    def _build_choice(self, names: Sequence[str], chosen: str) -> None:
        with gr.Row(elem_classes=["vae-lab-top"]):
            self.file = gr.Dropdown(
                self._choices(names), value=self._choice(chosen) if chosen else None, scale=4, min_width=320,
                label="Checkpoint or VAE to check", elem_id="vae_lab_checkup_file",
            )  # fmt: skip
            # Filled by javascript/vae_lab.js when a row of the table is chosen.
            self.picked = gr.Textbox(label="Picked row", elem_id="vae_lab_checkup_picked")
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
        self.said = gr.HTML(visible=False, elem_id="vae_lab_checkup_said")
        # Filled by javascript/vae_lab.js when Undo is pressed.
        self.undo = gr.Textbox(label="Undo", elem_id="vae_lab_checkup_undo")
        self.deciding = gr.HTML(visible=False, elem_id="vae_lab_checkup_deciding")

    def _wire(self) -> None:
        remedy = [self.remedy, self.for_checkpoint, self.always, self.deciding]
        shown = [self.file, self.overview, self.verdict, self.charts, self.details, *remedy, self.memory]
        told = [*shown, self.message, self.said]
        state = [self.file, self.memory, self.whole]
        connect(self.refresh.click, self.on_refresh, state, told)
        follow([self.file.input], self.on_file, [self.file], [self.memory, self.whole], told)
        follow([self.picked.input], self.on_picked, [self.picked], state, told)
        checked = connect(self.check.click, self.on_check, [self.file], [self.ended])
        all_checked = connect(self.check_all.click, self.on_check_all, [], [self.ended, self.whole])
        for run in (checked, all_checked):
            connect(run.then, self.on_ended, [self.ended, *state], told)
        chosen = [self.verdict, *remedy, self.memory, self.said]
        connect(self.for_checkpoint.click, self.on_use_for_checkpoint, [self.memory], chosen)
        connect(self.always.click, self.on_use_always, [self.memory], chosen)
        connect(self.undo.change, self.on_undo, [self.memory], chosen)
        # Cancel and the progress bar belong to javascript/vae_lab.js: they must work while a handler here blocks.

    # --- what there is to choose -----------------------------------------------------------------------------

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

    def _followed(self, choice: str | None, memory: _Memory | None, names: Sequence[str]) -> str:
        """The file to show: who looked at the checkpoint in use sees the one that is in use now."""
        chosen, current = _name_of(choice, names), self.host.current_checkpoint()
        return current if memory is None or chosen in ("", memory.current) else chosen

    # --- what there is to show -------------------------------------------------------------------------------

    def _show(
        self, chosen: str, shown: str | None, memory: _Memory | None, whole: bool, names: Sequence[str]
    ) -> tuple[Any, ...]:
        """Updates for everything but messages.

        Args:
            chosen: name of the file.
            shown: the menu's present value.
            memory: what the page showed before.
            whole: with the table of all files.
            names: of all files.
        """
        current = self.host.current_checkpoint()
        known = self.host.known_reports(names if whole else [chosen])
        report = known.get(chosen)
        remedy = self._remedy(chosen, report)
        return (
            choice_update(self._choices(names), self._choice(chosen) if chosen else None, shown),
            html_update(checkup_views.overview(names, known, current) if whole else ""),
            self._verdict(chosen, report),
            html_update(checkup_views.charts(report) if report else ""),
            html_update(checkup_views.details(report) if report else ""),
            *self._remedy_updates(remedy, chosen),
            _Memory(current, remedy.vae, memory.back if memory else None),
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
        decision, in_memory = self.host.decision(), self.host.held()
        if report.verdict.faults and self._decides_well(decision, report):
            text = checkup_views.remedied(decision.vae) + text
        # What was looked at before another VAE was chosen is no longer in memory.
        return text + (checkup_views.held(in_memory) if in_memory and in_memory.name == decision.vae else "")

    def _how_to_be_offered_more(self, report: FileRecord) -> str:
        if report.kind != "checkpoint" or report.verdict.status == HEALTHY:
            return ""
        where = "on the page Compare" if self.host.chooses_checkpoint else "in the menu at the top"
        return checkup_views.aside(f"Choose this checkpoint {where}, and a VAE to use instead is offered here.")

    def _remedy(self, chosen: str, report: FileRecord | None) -> _Remedy:
        """What to offer: nothing for other files, healthy ones, and where a sound VAE decodes already."""
        if report is None or chosen != self.host.current_checkpoint() or not report.verdict.faults:
            return _Remedy()
        decision, found = self.host.decision(), self.host.recommendation()
        already = self._decides_well(decision, report)
        if already:
            again = found is not None and decision.vae == found.name and decision.source != "always"
            return _Remedy(vae=decision.vae if again else "", always=again)
        if found is None:
            return _Remedy(checkup_views.aside(checkup_views.kind_to_get(report.model_family)))
        # A choice for every checkpoint goes before one for this checkpoint, which would change nothing.
        return _Remedy(
            checkup_views.recommended(found), found.name, for_checkpoint=decision.source != "always", always=True
        )

    def _decides_well(self, decision: Decision, report: FileRecord) -> bool:
        """An external VAE decodes, and is known to be sound and of the checkpoint's family."""
        chosen = self.host.known_reports([decision.vae]).get(decision.vae) if decision.vae != BUILT_IN else None
        if chosen is None or chosen.verdict.status != HEALTHY:
            return False
        return chosen.family is None or report.model_family is None or chosen.family.id == report.model_family.id

    def _remedy_updates(self, remedy: _Remedy, chosen: str) -> tuple[Any, ...]:
        """For the sentence, both buttons and the deciding line."""
        current = bool(chosen) and chosen == self.host.current_checkpoint()
        return (
            html_update(remedy.text),
            gr.update(value=f"Use {remedy.vae} for this checkpoint", visible=remedy.for_checkpoint),
            gr.update(value=f"Use {remedy.vae} always", visible=remedy.always),
            html_update(self._deciding() if current else ""),
        )

    def _deciding(self) -> str:
        decision = self.host.decision()
        built_in = decision.vae == BUILT_IN
        return views.deciding(decision.reason, next(self._asked), built_in_decodes=built_in)

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, choice: str | None, memory: _Memory | None, whole: bool) -> tuple[Any, ...]:
        """Show what the host has now."""
        self.host.listing(fresh=True)
        return self._told(lambda names: self._followed(choice, memory, names), choice, memory, whole, gr.update())

    def on_file(self, choice: str | None, memory: _Memory | None, whole: bool) -> tuple[Any, ...]:
        """Another file: what is known of it."""
        return self._told(lambda names: _name_of(choice, names), choice, memory, whole, html_update(""))

    def on_picked(self, picked: str, choice: str | None, memory: _Memory | None, whole: bool) -> tuple[Any, ...]:
        """A row of the table. What the script wrote is the time and the name, with a bar between."""
        wanted = picked.partition("|")[2]
        return self._told(lambda names: wanted if wanted in names else "", choice, memory, whole, gr.update())

    def on_check(self, choice: str | None) -> str:
        """Look at the chosen file."""
        self.host.listing(fresh=True)
        chosen = _name_of(choice, self._names())
        gone = f"{choice} is no longer there; choose another file" if choice else "there is no file"
        return self._run([chosen] if chosen else [], gone)

    def on_check_all(self) -> tuple[Any, ...]:
        """Look at all files, and have the table shown."""
        self.host.listing(fresh=True)
        return self._run(self._names(), "there is no file"), True

    def _run(self, wanted: Sequence[str], otherwise: str) -> str:
        try:
            if not wanted:
                raise HostError(otherwise)
            return checkup_views.checked(self.service.inspect(wanted, fresh=False), len(wanted))
        except VaeLabError as error:
            return views.alert(error)

    def on_ended(self, ended: str, choice: str | None, memory: _Memory | None, whole: bool) -> tuple[Any, ...]:
        """Tell how a run went, and show what is known now of the file that is chosen now."""
        told = self._told(lambda names: _name_of(choice, names), choice, memory, whole, html_update(ended))
        return (*told[:-1], gr.update())  # what was chosen during the run, with its Undo, stays

    def _told(
        self,
        choose: Callable[[Sequence[str]], str],
        shown: str | None,
        memory: _Memory | None,
        whole: bool,
        message: Any,
    ) -> tuple[Any, ...]:
        """Updates for everything: of the file that ``choose`` finds among all names, else of the checkpoint in use."""
        try:
            names = self._names()
            chosen = choose(names) or next(iter(names), "")
            return (*self._show(chosen, shown, memory, whole, names), message, html_update(""))
        except VaeLabError as error:
            return (*[gr.update()] * 9, memory, html_update(views.alert(error)), html_update(""))

    def on_use_for_checkpoint(self, memory: _Memory | None) -> tuple[Any, ...]:
        """The recommended VAE for the checkpoint in use, to stay."""
        return self._use_remedy("checkpoint", memory)

    def on_use_always(self, memory: _Memory | None) -> tuple[Any, ...]:
        """The recommended VAE for every checkpoint, to stay."""
        return self._use_remedy("always", memory)

    def on_undo(self, memory: _Memory | None) -> tuple[Any, ...]:
        """What was chosen before."""
        memory = memory or _Memory()
        return self._use(memory.back, memory)

    def _use_remedy(self, reach: str, memory: _Memory | None) -> tuple[Any, ...]:
        memory = memory or _Memory()
        if not memory.remedy:  # of a second click: it is chosen already
            return (*[gr.update()] * 5, memory, gr.update())
        return self._use(Choice(reach, memory.remedy, memory.current), memory)

    def _use(self, choice: Choice | None, memory: _Memory) -> tuple[Any, ...]:
        try:
            current = self.host.current_checkpoint()
            if choice is not memory.back and memory.current != current:
                raise HostError("the checkpoint has changed in the meantime; press Refresh")
            said, back = choose_to_stay(self.host, choice)
            back = back or memory.back
            report = self.host.known_reports([current]).get(current)
            remedy = self._remedy(current, report)
            updates = (self._verdict(current, report), *self._remedy_updates(remedy, current))
        except VaeLabError as error:
            return (*[gr.update()] * 5, memory, html_update(views.alert(error)))
        said = views.note(f"Done. {said}", undo=back is not None)
        return (*updates, replace(memory, remedy=remedy.vae, back=back), html_update(said))


def _label(name: str, verdict: Verdict | None, current: bool) -> str:
    """How a file is listed, unlike any other: its name, and what is known of it.

    It is also the value of the choice: gradio 3 shows the value in place of the label after an update.
    """
    notes = ["checkpoint in use"] if current else []
    if verdict is not None:
        notes.append(checkup_views.mark(verdict))
    return _SEPARATOR.join([name, *notes])


def _name_of(choice: str | None, names: Sequence[str]) -> str:
    """The file that is listed as ``choice``, whatever was known of it when the list was made; "" if it is gone."""
    wanted = choice or ""
    fitting = [name for name in names if wanted == name or wanted.startswith(f"{name}{_SEPARATOR}")]
    return max(fitting, key=len, default="")


def build_checkup_panel(host: Host) -> CheckupPanel:
    """Add the panel to the Blocks that is being built."""
    panel = CheckupPanel(host)
    panel.build()
    return panel
