"""Prints docs/faults.md: what a user gets after a fault at each step. Run: python -m tools.faults_table."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tests.unit.host import standalone_faults
from tests.unit.webui import faults
from tests.unit.webui.faults import FAULTS, FIRST, THIRD, Outcome, Step, bed, make_models, outcomes

_INTRODUCTION = """# Faults while an image is made

What you get when something goes wrong at a step of a generation with VAE Lab, or of a comparison in the stand-alone
app. The tables are made by injecting each fault at each step, into doubles of the hosts that decode with small VAEs
(`python -m tools.faults_table`); a test of the slow suite fails when they no longer hold.

Whatever a cell says, all of this was checked after each of {cases} faults:

- The host's VAE has its own tensors again, the same objects with the same bits, in the same precision. After a
  checkpoint switch they are those of the new checkpoint.
- No function of the host is replaced by ours; its queue is free.
- The infotext names the VAE that decoded the image.
- Nothing keeps the latents, the weights of another VAE or the job in memory, except the stores with a limit.

In the cells: **chosen** is the image of the VAE that was chosen, **own** that of the checkpoint's own VAE, **better**
that of the VAE that replaces a broken one; **+** means that a line below the image says what happened. **N of 3** is
how many VAEs of a comparison gave an image. **error** is the host's own error, which reaches the host unchanged (in
the stand-alone app, an error that the page reports), **stops** a program that the user ends, **–** a fault that cannot
happen at this step. **NaN** is an image of NaN values, as the host makes it. An error of ours that nobody expects ends
a comparison; errors of files, of torch and of memory cost it only the VAE in which they happen.

"Memory" is too little of it, as torch reports it for CUDA and for the CPU. "Switch" is another checkpoint that is
loaded at this step; one that is selected on the page during a comparison waits until it has ended.
"""


def page(models: Path) -> str:
    """The whole page, as Markdown.

    Args:
        models: see :func:`make_models`.
    """
    torch.set_num_threads(1)
    steps = [(group, step) for group, steps in faults.STEPS.items() for step in steps]
    results = {}
    for kind in faults.KINDS:
        with bed(kind, models) as host:
            results[kind] = _cells(outcomes(host, steps))
    own_steps = [(group, step) for group, steps in standalone_faults.STEPS.items() for step in steps]
    with standalone_faults.standalone_bed(models) as app:
        own = _cells(outcomes(app, own_steps))
    cases = sum(cell != "–" for row in itertools.chain(*results.values(), own) for cell in row)
    lines = [_INTRODUCTION.format(cases=f"{cases:,}"), "## In a WebUI", ""]
    lines += ["AUTOMATIC1111 WebUI.", "", *_table(steps, results["webui"])]
    for kind, name in (("forge", "Forge"), ("reforge", "reForge and Forge Classic")):
        lines += ["", f"{name}: {_differences(steps, results['webui'], results[kind])}"]
    lines += ["", "## In the stand-alone app", "", *_table(own_steps, own), ""]
    return "\n".join(lines)


def _cells(found: Sequence[Outcome | str | None]) -> list[list[str]]:
    """A row for each step."""
    texts = [_text(outcome) for outcome in found]
    return [texts[start : start + len(FAULTS)] for start in range(0, len(texts), len(FAULTS))]


def _text(outcome: Outcome | str | None) -> str:
    if outcome is None:
        return "–"
    if isinstance(outcome, str):
        return outcome
    if outcome.images is None:
        return "stops" if outcome.raised == "KeyboardInterrupt" else "error"
    line = " +" if outcome.lines else ""
    if outcome.compares:
        return f"{len(outcome.images)} of 3{line}"
    names = {FIRST: "chosen", THIRD: "better", "black": "NaN"}
    return names.get(outcome.images[0], "own") + line


def _table(steps: Sequence[tuple[str, Step]], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| Step | {' | '.join(FAULTS.values())} |", "|---" * (len(FAULTS) + 1) + "|"]
    groups = ""
    for (group, step), row in zip(steps, rows, strict=True):
        if group != groups:
            lines.append(f"| **{group}** |" + " |" * len(FAULTS))
            groups = group
        lines.append(f"| {step.title} | {' | '.join(row)} |")
    return lines


def _differences(
    steps: Sequence[tuple[str, Step]], rows: Sequence[Sequence[str]], others: Sequence[Sequence[str]]
) -> str:
    """Where the cells differ, as text."""
    found: dict[tuple[str, str], list[str]] = {}
    for (group, step), row, other in zip(steps, rows, others, strict=True):
        for title, one, two in zip(FAULTS.values(), row, other, strict=True):
            if one != two:
                found.setdefault((title, two), []).append(f"{group}: {step.title}")
    if not found:
        return "the same."
    return f"the same, except\n\n{_listed(found)}"


def _listed(found: Mapping[tuple[str, str], Sequence[str]]) -> str:
    return "\n".join(f"- {title}: **{cell}** at {'; '.join(where)}" for (title, cell), where in found.items())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(page(make_models(Path(folder))))
