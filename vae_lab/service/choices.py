"""Save which VAE decodes from now on, and undo choices."""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass

from vae_lab.bounded_store import BoundedStore
from vae_lab.errors import HostError
from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, Decision, Reach

__all__ = ["ActiveVae", "ChoiceResult", "ChoiceService"]

_MAX_UNDOS = 100


@dataclass(frozen=True)
class ChoiceResult:
    """The result of a choice.

    Attributes:
        message: a sentence for the user.
        undo_id: what :meth:`ChoiceService.undo` takes to go back; None if there is nothing to undo.
    """

    message: str
    undo_id: str | None


@dataclass(frozen=True)
class ActiveVae:
    """What decodes the next image, unless that image's own choice is another.

    Attributes:
        checkpoint: name of the checkpoint in use, or "".
        decision: which VAE, and why.
        undo_id: what undoes the last choice; None if there is nothing to undo.
    """

    checkpoint: str
    decision: Decision
    undo_id: str | None = None

    @property
    def mark(self) -> str:
        """Differs if anything differs; pages compare it with that of what they show."""
        shown = repr((self.checkpoint, self.decision))
        return hashlib.sha256(shown.encode(errors="backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class _Undo:
    """How to undo a choice.

    Attributes:
        id: unguessable, because anyone who knows it can change a choice.
        reach: of the choice.
        vae: what was chosen.
        before: what had been chosen before.
        checkpoint: the one in use at the time.
    """

    id: str
    reach: Reach
    vae: str
    before: str
    checkpoint: str

    @property
    def nbytes(self) -> int:
        """Not limited: only their number is."""
        return 0


class ChoiceService:
    """Saves choices on a host. Thread-safe."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._undos: BoundedStore[_Undo] = BoundedStore(0, _MAX_UNDOS, "There is nothing to undo")

    def active(self) -> ActiveVae:
        """What is active now, whoever has chosen it.

        Raises:
            VaeLabError: the host cannot say.
        """
        last = next(iter(self._undos.newest_first()), None)
        return ActiveVae(self._host.current_checkpoint(), self._host.decision(), last.id if last else None)

    def choose(self, reach: Reach, vae: str, checkpoint: str = "") -> ChoiceResult:
        """Have a VAE decode from now on.

        Args:
            reach: for one checkpoint, or for every checkpoint.
            vae: name of a VAE, ``Built-in`` or ``Automatic``; "" means ``Automatic``.
            checkpoint: the checkpoint that the user saw when choosing for one checkpoint; "" for the one in use.

        Raises:
            VaeLabError: it cannot be chosen, with the reason.
        """
        current = self._host.current_checkpoint()
        if reach == "checkpoint" and checkpoint not in ("", current):
            raise HostError(
                f"This choice is for {checkpoint}, but {current or 'no checkpoint'} is in use now. "
                f"Select {checkpoint} first, or use the VAE always."
            )
        with self._lock:
            return self._save(reach, vae or AUTOMATIC, current)

    def undo(self, undo_id: str) -> ChoiceResult:
        """Go back to what was chosen before. The result can be undone in turn.

        Args:
            undo_id: from :class:`ChoiceResult`; valid once.

        Raises:
            UnknownChoice: there is nothing to undo.
            HostError: the checkpoint has changed since.
            VaeLabError: what was chosen before cannot be chosen any more.
        """
        with self._lock:
            undo = self._undos.get(undo_id)
            if undo.reach == "checkpoint" and undo.checkpoint != self._host.current_checkpoint():
                raise HostError(f"The choice was for {undo.checkpoint}, but the checkpoint has changed since")
            result = self._save(undo.reach, undo.before, undo.checkpoint)
            self._undos.discard(undo_id)
            return result

    def _save(self, reach: Reach, vae: str, checkpoint: str) -> ChoiceResult:
        before = self._host.chosen(reach)
        message = self._host.use_always(vae) if reach == "always" else self._host.use_for_checkpoint(vae)
        self._host.note_used([vae])
        if before == vae:
            return ChoiceResult(message, self._undo_of(reach, vae, checkpoint))
        undo = _Undo(secrets.token_urlsafe(18), reach, vae, before, checkpoint)
        self._undos.add(undo)
        return ChoiceResult(message, undo.id)

    def _undo_of(self, reach: Reach, vae: str, checkpoint: str) -> str | None:
        """After a second click: the id that undoes the first one."""
        last = next(iter(self._undos.newest_first()), None)
        same = last is not None and (last.reach, last.vae, last.checkpoint) == (reach, vae, checkpoint)
        return last.id if last is not None and same else None
