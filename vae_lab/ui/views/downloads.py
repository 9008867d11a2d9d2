"""Downloads on the Checkup page: what would be downloaded, and what was."""

from __future__ import annotations

from vae_lab.latents.family import FAMILIES
from vae_lab.messages import text
from vae_lab.service.downloads import Downloaded, DownloadPlan
from vae_lab.text import as_text, sized
from vae_lab.ui.views.checkup import status_words
from vae_lab.ui.views.comparison import alert, message
from vae_lab.ui.views.html import render

__all__ = ["button", "downloaded", "offered"]


def offered(plan: DownloadPlan) -> str:
    """Which file, from where, where to: enough to get it by hand too."""
    published = plan.published
    size = f"{sized(published.size)} ({published.size:,} bytes)"
    stored = published.size - plan.needed
    if stored:
        size = text("{size}; {stored} of it are stored from an earlier download", size=size, stored=sized(stored))
    facts = [
        (text("File"), published.file),
        (text("Into"), as_text(str(plan.folder))),
        (text("Size"), size),
        (text("SHA-256"), published.sha256),
    ]
    room = {"needed": sized(plan.needed), "free": sized(plan.free)} if plan.free < plan.needed else {}
    return render("downloads", "offered", FAMILIES[published.family].title, published.address, facts, room)


def button(plan: DownloadPlan | None) -> str:
    """The button's label."""
    return text("Download {file} ({size})", file=plan.published.file, size=sized(plan.needed)) if plan else ""


def downloaded(result: Downloaded) -> str:
    """The result, as a message: an alert if the new file is not healthy."""
    status = status_words(result.record.verdict)
    sentence = text("{file} was downloaded and checked: {status}.", file=result.path.name, status=status)
    return alert(sentence) if result.record.verdict.faults else message(sentence)
