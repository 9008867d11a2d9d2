"""A comparison as one HTML file with images, light table and numbers, which needs no server."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from PIL import Image

from vae_lab.comparison import Decoded
from vae_lab.comparison.measures import EXPLANATIONS, MAX_IMAGES
from vae_lab.errors import VaeLabError
from vae_lab.host.choices import BUILT_IN
from vae_lab.messages import catalogue, current_language, text, translated
from vae_lab.service.comparisons import StoredComparison
from vae_lab.text import as_text, sized
from vae_lab.version import __version__

__all__ = ["share_html"]

_MAX_LOSSLESS = 24_000_000  # pixels: about 45 MB of HTML
_MAX_PIXELS = 256_000_000  # about 75 MB of HTML
_MAX_SIDE = 16383  # of WebP
_QUALITY = 95

_HERE = Path(__file__).parent
_PACKAGED = _HERE.parent / "ui" / "assets"  # of a wheel; a checkout has them at its root
_ASSETS = _PACKAGED if _PACKAGED.is_dir() else _HERE.resolve().parents[1]
_IMPORT = re.compile(r'(?<=from ")\.{1,2}/[\w./]+\.mjs(?=")')


def share_html(stored: StoredComparison) -> bytes:
    """A page with the images, the light table and the numbers, in UTF-8.

    Up to 24 megapixels in total, the images are lossless WebP; beyond that, WebP of quality 95, and the page says so.
    They have no generation parameters. Everything from files is escaped, and the page's own policy forbids it to load
    or send anything. The page is in the language of the context.

    Raises:
        VaeLabError: the images are too large or too many.
    """
    images = [image for result in stored.comparison.decoded for image in _images(result)]
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    if pixels > _MAX_PIXELS or any(max(image.shape[:2]) > _MAX_SIDE for image in images):
        limit = f"{_MAX_PIXELS // 1_000_000} megapixels in total, {_MAX_SIDE} pixels per side"
        raise VaeLabError(f"the images are too large to share in one file (limit: {limit}); compare fewer VAEs")
    lossless = pixels <= _MAX_LOSSLESS
    figures = [_figure(stored, result, lossless) for result in stored.comparison]
    size = sum(len(webp) for figure in figures for webp in figure.webps)
    html = _template().render(
        title=as_text(stored.generation.title or stored.generation.id),
        figures=figures,
        count=len(images),
        size=sized(size),
        quality=0 if lossless else _QUALITY,
        columns=[(known, text(known.text, reference=_reference(stored))) for known in EXPLANATIONS.values()],
        rows=[(figure, _numbers(stored, figure.name)) for figure in figures],
        measured_images=min(MAX_IMAGES, len(stored.generation.latents)),
        style=Markup((_ASSETS / "style.css").read_text(encoding="utf8")),  # noqa: S704  our own
        modules=Markup(_import_map()),  # noqa: S704  base64 and our own names
        language=current_language() if catalogue() else "",
        dictionary=catalogue(),
        nonce=secrets.token_urlsafe(12),
        version=__version__,
    )
    return html.encode("utf8")


@dataclass(frozen=True)
class _Figure:
    """One VAE: its name, facts, and images as WebP; or an error instead."""

    name: str
    facts: str
    error: str
    width: int
    height: int
    webps: tuple[bytes, ...]

    @property
    def urls(self) -> Iterator[str]:
        return (f"data:image/webp;base64,{base64.b64encode(webp).decode()}" for webp in self.webps)


def _images(result: Decoded) -> np.ndarray | tuple[np.ndarray, ...]:
    return () if result.images is None else result.images


def _figure(stored: StoredComparison, result: Decoded, lossless: bool) -> _Figure:
    webps = tuple(_webp(image, lossless) for image in _images(result))
    height, width = (0, 0) if result.images is None else result.images.shape[1:3]
    is_known = result.name == BUILT_IN and stored.checkpoint
    facts = [text("of {checkpoint}", checkpoint=as_text(stored.checkpoint))] if is_known else []
    facts += [result.family.title] if result.family else []
    facts += [] if result.finite else [text("The output contains NaN or infinite values, shown as black.")]
    return _Figure(as_text(result.name), " · ".join(facts), result.error, width, height, webps)


def _webp(image: np.ndarray, lossless: bool) -> bytes:
    """uint8 [H,W,3] -> WebP."""
    buffer = io.BytesIO()
    quality = 20 if lossless else _QUALITY  # of a lossless image, the effort
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "WEBP", lossless=lossless, quality=quality, method=2)
    return buffer.getvalue()


def _reference(stored: StoredComparison) -> str:
    name = stored.measured.reference
    return text("the built-in VAE") if name == BUILT_IN else as_text(name) or text("the reference")


def _numbers(stored: StoredComparison, name: str) -> list[str]:
    """What is shown in the row of a VAE; empty if nothing was measured."""
    found = {as_text(each): measures for each, measures in stored.measured.of.items()}.get(name)
    if found is None:
        return []
    values = [(getattr(found, key), known.digits) for key, known in EXPLANATIONS.items()]
    return ["–" if v is None else text("equal") if math.isinf(v) else f"{v:.{digits}f}" for v, digits in values]


# --- the scripts -----------------------------------------------------------------------------------------------------


def _import_map() -> str:
    """The modules of the light table by name, as data: URLs, for a page without a server.

    A module with such an address cannot import a relative one, so each import names the module by its path instead.
    """
    folder = _ASSETS / "javascript"
    paths = [*sorted((folder / "light_table").glob("*.mjs")), *sorted((folder / "shared").glob("*.mjs"))]
    imports = {}
    for path in paths:
        here = PurePosixPath(path.relative_to(folder).parent.as_posix())
        source = _IMPORT.sub(lambda match, here=here: _absolute(here, match[0]), path.read_text(encoding="utf8"))
        encoded = base64.b64encode(source.encode("utf8")).decode()
        imports[path.relative_to(folder).as_posix()] = f"data:text/javascript;base64,{encoded}"
    return json.dumps({"imports": imports})


def _absolute(folder: PurePosixPath, address: str) -> str:
    """The name of a module that one in ``folder`` imports as ``./x.mjs`` or ``../folder/x.mjs``."""
    for part in PurePosixPath(address).parts:
        folder = folder.parent if part == ".." else folder / part
    return folder.as_posix()


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["t"] = partial(text, escape=escape)
    environment.filters["translated"] = translated
    return environment.get_template("share.html")
