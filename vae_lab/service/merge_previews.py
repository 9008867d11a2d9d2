"""Before checkpoints are merged: whether the VAE of the result would be healthy.

The VAEs are really merged, in memory, and the result is checked as any VAE is: unrelated VAEs give a grey one,
relatives do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vae_lab.autoencoders import VaeFile, open_vae
from vae_lab.checkup import Verdict
from vae_lab.errors import HostError, MissingVae, UnknownChoice
from vae_lab.host.base import Host
from vae_lab.identity import fingerprint
from vae_lab.library.inspect import checked
from vae_lab.service.runs import Runs
from vae_lab.state_dict import not_finite

__all__ = ["MergePreview", "MergePreviewService", "Method"]

Method = Literal["weighted-sum", "add-difference"]
"""``A (1 - M) + B M``, or ``A + (B - C) M``."""

_STEPS = 4


@dataclass(frozen=True)
class MergePreview:
    """What a merge would have as its VAE.

    Attributes:
        verdict: on the merged VAE.
        vae: the external VAE to bake in instead, if that is needed and known; else "".
        reason: why, as text that follows its name and a colon.
    """

    verdict: Verdict
    vae: str = ""
    reason: str = ""


class MergePreviewService:
    """Merges VAEs in memory, and checks them. Thread-safe.

    Args:
        host: of the checkpoints.
        runs: of the host; a preview is one of them.
    """

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs

    def preview(self, checkpoints: Sequence[str], method: Method, multiplier: float) -> MergePreview:
        """Check the VAE that a merge would have.

        Args:
            checkpoints: names of A and B, and of C for ``add-difference``.
            method: see :data:`Method`.
            multiplier: M, 0 to 1.

        Raises:
            UnknownChoice: no checkpoint has one of the names.
            HostError: the wrong number of names, or another task is running.
            FileError: a file cannot be read, or A has no VAE.
        """
        wanted = 2 if method == "weighted-sum" else 3
        if len(checkpoints) != wanted:
            raise HostError(f"{method} needs {wanted} checkpoints, not {len(checkpoints)}")
        files = self._host.checkpoint_files()
        unknown = [name for name in checkpoints if name not in files]
        if unknown:
            raise UnknownChoice(f"no checkpoint named {unknown[0]}")
        with self._runs.one_at_a_time(), ExitStack() as opened:
            vaes = []
            for i, name in enumerate(checkpoints):
                self._runs.report(i, _STEPS, name)
                vaes.append(_opened(opened, str(files[name]), required=i == 0))
            verdict = self._checked(vaes, method, multiplier)
        found = self._host.known_recommendation(checkpoints[0]) if verdict.faults else None
        return MergePreview(verdict, found.name if found else "", found.reason if found else "")

    def _checked(self, vaes: Sequence[VaeFile | None], method: Method, multiplier: float) -> Verdict:
        first = vaes[0]
        assert first is not None
        states = [vae.state_dict(check_finite=False) if vae is not None else {} for vae in vaes]
        merged = _merged(states, method, multiplier)
        if not_finite(merged):
            raise HostError("the merged VAE would have NaN or infinite values")
        self._runs.report(_STEPS - 1, _STEPS, "checking the merged VAE")
        # Stored like that of a file, so it is known already when the merge is written.
        return Verdict.of(checked(first, merged, fingerprint(merged), self._host.file_cache).findings)


def _opened(opened: ExitStack, path: str, *, required: bool) -> VaeFile | None:
    """The VAE in a checkpoint; None if it has none, and A keeps its own."""
    try:
        return opened.enter_context(open_vae(path))
    except MissingVae:
        if required:
            raise
        return None


def _merged(states: Sequence[dict[str, Tensor]], method: Method, multiplier: float) -> dict[str, Tensor]:
    """As the WebUI's Checkpoint Merger does it: in the files' own precision, and only what A has.

    Raises:
        HostError: tensors have different shapes; that merger then ends with an error.
    """
    merged = dict(states[0])
    for name, a in states[0].items():
        b, c = states[1].get(name), states[2].get(name) if method == "add-difference" else None
        if b is None:
            continue
        if any(other is not None and other.shape != a.shape for other in (b, c)):
            raise HostError(f"the VAEs have different layers ({name}), so these checkpoints cannot be merged")
        if method == "weighted-sum":
            merged[name] = (1 - multiplier) * a + multiplier * b
        elif c is not None:
            merged[name] = a + multiplier * (b - c)
    return merged
