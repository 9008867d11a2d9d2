"""The HTTP routes of downloads."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from vae_lab.api.models import Answer, ReportAnswer
from vae_lab.api.requests import errors, require_json
from vae_lab.service.downloads import Downloaded, DownloadPlan, DownloadService
from vae_lab.text import as_text

__all__ = ["add_downloads"]


class DownloadRequest(BaseModel):
    """Which VAE to download."""

    vae: str = Field(..., description="A `name` of `GET download`. No other file can be downloaded.")


class PublishedAnswer(Answer):
    """One published VAE, and what downloading it means."""

    name: str
    family: str
    address: str = Field(..., description="From where.")
    folder: str = Field(..., description="Where to.")
    file: str = Field(..., description="Name of the new file.")
    size: int = Field(..., description="Of the file, in bytes.")
    sha256: str = Field(..., description="Of the file.")
    needed: int = Field(..., description="Bytes left to download: less than `size` if a download was interrupted.")
    free: int = Field(..., description="Free bytes on that disk.")

    @classmethod
    def of(cls, plan: DownloadPlan) -> PublishedAnswer:
        published = plan.published
        return cls(
            name=published.name, family=published.family, address=published.address, folder=as_text(str(plan.folder)),
            file=published.file, size=published.size, sha256=published.sha256, needed=plan.needed, free=plan.free,
        )  # fmt: skip


class DownloadsAnswer(Answer):
    """What can be downloaded, the recommended one of each family first."""

    vaes: list[PublishedAnswer]

    @classmethod
    def of(cls, plans: Sequence[DownloadPlan]) -> DownloadsAnswer:
        return cls(vaes=[PublishedAnswer.of(plan) for plan in plans])


class DownloadedAnswer(Answer):
    """The new file, and what its checkup found."""

    file: str = Field(..., description="Its name; another than announced if that was taken.")
    vae: str = Field(..., description="Its name in the host's list of VAEs; empty if it is not listed.")
    report: ReportAnswer

    @classmethod
    def of(cls, downloaded: Downloaded) -> DownloadedAnswer:
        report = ReportAnswer.of(downloaded.name or downloaded.path.name, downloaded.record)
        return cls(file=downloaded.path.name, vae=downloaded.name, report=report)


def add_downloads(router: APIRouter, service: DownloadService) -> None:
    """Add the routes."""
    only_json = [Depends(require_json)]

    @router.get("/download", response_model=DownloadsAnswer, responses=errors(404, 409, 422))
    def plans(checkpoint: str = "") -> DownloadsAnswer:
        """Say which published VAEs can be downloaded, for a checkpoint or all; downloads nothing."""
        return DownloadsAnswer.of(service.plans(checkpoint))

    @router.post(
        "/download", response_model=DownloadedAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json
    )
    def download(request: DownloadRequest) -> DownloadedAnswer:
        """Download a published VAE into the host's folder, and check it; answers when that is done."""
        return DownloadedAnswer.of(service.download(request.vae))
