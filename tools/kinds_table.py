"""Prints the table "What a file is" of docs/files.md. Run: python -m tools.kinds_table."""

from __future__ import annotations

import sys

from vae_lab.state_dict.kinds import KINDS, MIXED_REMEDY, SHARD_REMEDY, Kind

_ANSWERS = {
    "vae": ("another kind of VAE", "`not-checked`, `other-kind`"),
    "model": ("another kind of model, no VAE in it", "`no-vae`, `other-model`"),
    "pixels": ("needs no VAE", "`no-vae`, `needs-no-vae`"),
}
_OTHERS = (
    ("one part of a split model", "part 1 of 3", "`no-vae`, `shard`", SHARD_REMEDY),
    ("a VAE with names of ldm and diffusers mixed", "mixed names", "`broken`, `half-converted`", MIXED_REMEDY),
)


def table() -> str:
    """The table, as Markdown."""
    rows = ["| File | Answer | Verdict, code | Remedy |", "|---|---|---|---|"]
    rows += [_row(kind) for kind in sorted(KINDS, key=lambda kind: ("vae", "model", "pixels").index(kind.answer))]
    rows += [f"| {' | '.join(cells)} |" for cells in _OTHERS]
    return "\n".join(rows)


def _row(kind: Kind) -> str:
    return f"| {kind.title} | {' | '.join(_ANSWERS[kind.answer])} | {kind.remedy} |"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
