"""What the routes take and give, as published in ``/openapi.json``. FastAPI checks every answer against it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from vae_lab.comparison.measures import EXPLANATIONS, MAX_IMAGES
from vae_lab.images import LONGEST_SIDE

__all__ = [
    "CancelAnswer", "CheckpointsAnswer", "CompareAnswer", "CompareRequest", "GenerationAnswer", "InspectAnswer",
    "InspectRequest", "LatentsAnswer", "LibraryAnswer", "Problem", "ProgressAnswer", "RoundTripAnswer",
    "RoundTripRequest", "ScanAnswer", "VaesAnswer", "errors", "file_of",
]  # fmt: skip


_ERRORS = {
    401: "Nobody is logged in, and this server asks for a password.",
    404: "Something is not there, or not kept any longer.",
    409: "The host cannot do this now: most often another run is going on.",
    413: "What was sent is too large.",
    415: "What was sent is of another media type.",
    422: "The request has a wrong form, or what was sent cannot be used.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors that a route may answer, for its documentation."""
    return {status: {"model": Problem, "description": _ERRORS[status]} for status in statuses}


def file_of(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """An answer that is a file of one of ``kinds``, for its documentation."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": "The file.", "content": {kind: {"schema": schema} for kind in kinds}}}


class CompareRequest(BaseModel):
    """Which latent to decode with which VAEs."""

    latents: str = Field(..., description="Id of a kept generation, as `GET latents` lists it.")
    vaes: list[str] = Field(default=[], description="Names, as `GET vaes` lists them. The built-in VAE always decodes.")


class InspectRequest(BaseModel):
    """Which files to look at."""

    names: list[str] = Field(
        ..., description="Names of VAEs and checkpoints, or `Built-in` for the current checkpoint's VAE."
    )


class RoundTripRequest(BaseModel):
    """Which image to encode and decode with which VAEs."""

    image: str = Field(..., description="An image in base64, also as a `data:` address.")
    vaes: list[str] = Field(
        default=[], description="Names, as `GET vaes` lists them. The built-in VAE is always there."
    )
    longest: int = Field(
        default=LONGEST_SIDE, description="Pixels of the longer side above which the image is resampled."
    )


def _v1_schema(schema: dict[str, Any], model: Any) -> None:
    """Pydantic 1 publishes neither that a value may be null, nor that an answer has every one of its values."""
    for field in model.__fields__.values():
        published = schema["properties"][field.alias]
        if field.allow_none:
            reference = published.pop("$ref", None)
            published.update({"nullable": True}, **({"allOf": [{"$ref": reference}]} if reference else {}))
    schema["required"] = list(schema["properties"])


class _Answer(BaseModel):
    """Has what is declared and nothing else."""

    if hasattr(BaseModel, "model_json_schema"):
        model_config = {"extra": "forbid"}
    else:

        class Config:
            """For pydantic 1."""

            extra = "forbid"
            schema_extra = staticmethod(_v1_schema)


class Problem(BaseModel):
    """Every error."""

    detail: str = Field(..., description="One line for people.")


class VaeAnswer(_Answer):
    """One external VAE."""

    name: str = Field(..., description="To be used in requests.")
    label: str = Field(..., description="Name, and what is known of it, for people.")
    family: str | None = Field(..., description="Latent family, such as `sd1`; null if it has not been told yet.")
    problem: str = Field(..., description="Why it cannot be used, where that is known; else empty.")


class VaesAnswer(_Answer):
    """All external VAEs, in the host's order."""

    vaes: list[VaeAnswer]


class GenerationAnswer(_Answer):
    """One kept generation."""

    id: str = Field(..., description="To be used in requests.")
    label: str = Field(..., description="When, how large, what: for people.")
    family: str
    size: list[int] = Field(..., description="Width and height of its images, in pixels.")
    images: int = Field(..., description="How many latents it has.")
    infotexts: list[str] = Field(..., description="Generation parameters, one for each image; may be empty.")


class LatentsAnswer(_Answer):
    """All kept generations, newest first."""

    latents: list[GenerationAnswer]


def _number(name: str) -> Any:
    known = EXPLANATIONS[name]
    unit = f" In {known.unit}." if known.unit else ""
    return Field(..., description=known.text.format(reference="the reference") + unit)


class MeasuresAnswer(_Answer):
    """The images of one VAE in numbers, of a batch the first four. What compares is null without a reference."""

    seconds: float = _number("seconds")
    contrast: float = _number("contrast")
    saturation: float = _number("saturation")
    sharpness: float = _number("sharpness")
    clipped_blacks: float = _number("clipped_blacks")
    clipped_whites: float = _number("clipped_whites")
    delta_e: float | None = _number("delta_e")
    delta_e_95: float | None = _number("delta_e_95")
    ssim: float | None = _number("ssim")
    psnr: float | None = _number("psnr")
    equal: bool = Field(..., description="No pixel that was measured differs; `psnr`, being infinite, is null then.")


class ResultAnswer(_Answer):
    """What one VAE made of the latent."""

    name: str
    family: str | None
    seconds: float = Field(..., description="Time for decoding alone.")
    error: str = Field(..., description="Why there are no images; else empty.")
    finite: bool = Field(..., description="False if the decoder gave NaN or infinite values, which are shown black.")
    in_strips: bool = Field(..., description="Memory was short, so the decoder went over the latents in strips.")
    images: list[str] = Field(..., description="Paths of PNGs, one for each latent, to be read on this server.")
    measures: MeasuresAnswer | None = Field(
        ..., description=f"Null without images. Of a larger batch, the first {MAX_IMAGES} images are measured."
    )


class CompareAnswer(_Answer):
    """A comparison, in the order asked for; the built-in VAE is first. It is kept until newer ones need the room."""

    id: str
    family: str
    cancelled: bool = Field(..., description="Somebody cancelled it: `results` has what was decoded until then.")
    reference: str = Field(..., description="Name of the VAE that `measures` compare with; empty if none decoded.")
    sheet: str = Field(..., description="Path of a PNG with all images side by side, and their names.")
    results: list[ResultAnswer]


class RoundTripResultAnswer(_Answer):
    """What one VAE made of the image."""

    name: str
    family: str | None
    psnr: float | None = _number("psnr")
    ssim: float | None = _number("ssim")
    delta_e: float | None = _number("delta_e")
    encode_seconds: float
    decode_seconds: float
    finite: bool = Field(..., description="False if the latent or the image has NaN or infinite values.")
    in_strips: bool = Field(..., description="Memory was short, so the decoder went over the latent in strips.")
    error: str = Field(..., description="Why there is no image; else empty.")
    images: dict[str, str] = Field(..., description="Kind of image -> path of a PNG, to be read on this server.")


class RoundTripAnswer(_Answer):
    """A round trip, in the order asked for; the built-in VAE is first. It is kept until newer ones need the room."""

    id: str
    size: list[int] = Field(..., description="Width and height of the image as it went in, in pixels.")
    remarks: list[str] = Field(..., description="What was done to the image before, such as cropping.")
    original: str = Field(..., description="Path of the PNG that went in.")
    results: list[RoundTripResultAnswer]
    cancelled: bool


class CheckpointAnswer(_Answer):
    """One checkpoint, and what is known of the VAE in it; null where it has not been looked at, or is healthy."""

    name: str
    stem: str = Field(..., description="Of its file.")
    current: bool
    status: str | None = Field(..., description="`healthy`, `suspect`, `missing`, `broken` or `unreadable`.")
    code: str | None = Field(..., description="Of the worst finding.")
    title: str | None = Field(..., description="Of the worst finding, a few words.")
    text: str | None = Field(..., description="Of the worst finding, a sentence.")


class CheckpointsAnswer(_Answer):
    """All checkpoints, in the host's order."""

    checkpoints: list[CheckpointAnswer]


class EvidenceAnswer(_Answer):
    """A number that was measured."""

    name: str
    value: float
    unit: str
    wanted: str = Field(..., description="What a faithful VAE has, in words; may be empty.")


class FindingAnswer(_Answer):
    """One thing that was found out about a VAE."""

    code: str
    severity: str
    text: str
    evidence: list[EvidenceAnswer]
    remedy: str = Field(..., description="What to do about it; may be empty.")


class VerdictAnswer(_Answer):
    """All findings, worst first."""

    status: str
    findings: list[FindingAnswer]


class IdentityAnswer(_Answer):
    """What is published about a file."""

    name: str
    match: str
    aliases: list[str]
    grade: str = Field(..., description="`A`: two sources, or the publisher's own; `B`: one source.")


class ParentAnswer(_Answer):
    """One VAE that another was merged from."""

    name: str
    weight: float = Field(..., description="Its share, from 0 to 1.")


class MergeAnswer(_Answer):
    """What a VAE was merged from."""

    parents: list[ParentAnswer]
    residual: float = Field(..., description="Share of the weights that the parents leave unexplained.")


class ReportAnswer(_Answer):
    """A file that was looked at, as `python -m vae_lab inspect --json` prints it. Null is what could not be told."""

    name: str
    path: str
    kind: str | None
    layout: str | None
    family: str | None
    dtype: str | None
    fingerprint: str | None
    identity: IdentityAnswer | None
    verdict: VerdictAnswer
    merge: MergeAnswer | None
    measured: list[EvidenceAnswer]
    bytes_read: int
    seconds: float


class InspectAnswer(_Answer):
    """One report for each name; after a cancel, for those that were reached."""

    reports: list[ReportAnswer]


class ProgressAnswer(_Answer):
    """What is going on now."""

    busy: bool
    done: int = Field(..., description="Steps done.")
    total: int = Field(..., description="Steps in all; 0 while that is not known.")
    what: str = Field(..., description="What comes next.")


class CancelAnswer(_Answer):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(..., description="True if a run was asked to stop after its current step.")


class ScanAnswer(_Answer):
    """How a scan went, and what all files come to."""

    files: int
    counts: dict[str, int] = Field(..., description="Status -> files, worst first.")
    groups: int = Field(..., description="VAEs that are in more than one file.")
    copies: int = Field(..., description="VAE files that another one makes superfluous.")
    freeable_bytes: int
    unknown: int = Field(..., description="Files that no scan has looked at yet.")
    complete: bool = Field(..., description="False if it was cancelled; the next scan goes on from here.")
    scanned: int
    read: int
    bytes_read: int
    seconds: float


class RowAnswer(_Answer):
    """One file of the library."""

    name: str
    path: str
    status: str
    kind: str = Field(..., description="`checkpoint`, `vae` or empty.")
    size: int = Field(..., description="Bytes.")
    family: str
    identity: str = Field(..., description="Name under which the VAE was published; may be empty.")
    same_as: list[str] = Field(..., description="Other files with the same VAE, the first few.")
    more_same: int
    contains: list[str] = Field(..., description="Of a checkpoint: VAE files with the VAE that is built into it.")
    more_contained: int
    inside: list[str] = Field(..., description="Of a VAE file: checkpoints that it is built into.")
    more_inside: int
    sure: bool = Field(..., description="All weights were compared, not a sample alone.")
    merge: str
    title: str
    finding: str
    listed: str = Field(..., description="Name in the host's menus; empty if it is not there.")


class LibraryAnswer(_Answer):
    """One page of the library."""

    rows: list[RowAnswer]
    total: int = Field(..., description="Rows on all pages.")
    pages: int
    page: int = Field(..., description="This one, from 0; the last one if a later one was asked for.")
