"""Our scripts and style sheet on static pages: the HTML of the views with made-up images, and no gradio.

Much faster than the app, and the same for every version of gradio. Tests of what depends on gradio's page, or on what
the server answers, stay with the app.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from vae_lab.comparison import Comparison, Decoded, png_bytes
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.service.comparisons import StoredComparison
from vae_lab.ui import assets
from vae_lab.ui.views.comparison import results
from vae_lab.ui.views.numbers import numbers

# What gradio's own style sheet does to every page, as far as ours relies on it.
STYLE = """
    *, ::before, ::after { box-sizing: border-box; margin: 0; padding: 0; border: 0 solid; }
    img, canvas { display: block; max-width: 100%; height: auto; vertical-align: middle; }
    button, input, select, textarea { font: inherit; color: inherit; }
    body {
        padding: 16px; font-family: sans-serif; line-height: 1.5;
        --background-fill-primary: #fff; --background-fill-secondary: #f9fafb; --body-text-color: #1f2937;
        --body-text-color-subdued: #6b7280; --border-color-primary: #e5e7eb; --color-accent: #f97316;
        --radius-sm: 4px; --radius-md: 6px;
    }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>VAE Lab</title>
<link rel="icon" href="data:,"><style>{style}</style><link rel="stylesheet" href="style.css">
<script>{script}</script><script type="module" src="javascript/vae_lab.mjs?{version}"></script>
</head>
<body class="vae-lab">{body}</body>
</html>
"""
# Parts of the Compare page that the light table must not change, or that it writes to.
COMPARE = """
<div id="vae_lab_source"><input></div>
<div id="vae_lab_vaes"><input type="checkbox"><input type="checkbox"></div>
<button id="other_button" onclick="window.comparisons = 1 + (window.comparisons ?? 0)">Another button</button>
<div id="vae_lab_panel" hidden></div>
<div id="vae_lab_results" style="max-width: 980px">{grid}</div>
<div id="vae_lab_numbers" style="margin-top: 160px">{numbers}</div>
"""


def made_up_images(names: Sequence[str], size: int = 128, batch: int = 2) -> dict[str, np.ndarray]:
    """Name -> uint8 [batch,size,size,3]: for each VAE the same noise, less and less like the first one's."""
    random = np.random.default_rng(0)
    base = random.integers(40, 216, (batch, size, size, 3))
    images = {}
    for i, name in enumerate(names):
        change = random.integers(-6 * i, 6 * i + 1, base.shape) + 2 * i
        images[name] = np.clip(base + change, 0, 255).astype(np.uint8)
    return images


def made_up_comparison(
    names: Sequence[str],
    *,
    size: int = 128,
    batch: int = 2,
    refused: str = "",
    id: str = "made-up",  # noqa: A002
) -> StoredComparison:
    """A comparison without any VAE.

    Args:
        names: of the VAEs.
        size: side of the images in pixels.
        batch: images per VAE.
        refused: name of one more VAE, which has no images.
        id: of the comparison.
    """
    family = FAMILIES["sd1"]
    images = made_up_images(names, size, batch)
    decoded = [Decoded(name, pixels, 0.25 + i / 16, family=family) for i, (name, pixels) in enumerate(images.items())]
    if refused:
        error = f"{refused} is a VAE for SDXL, the latent is one of SD1 / SD2"
        decoded.append(Decoded(refused, error=error, family=FAMILIES["sdxl"]))
    latents = torch.zeros(batch, 4, size // 8, size // 8)
    generation = Generation("generation", latents, family, "Made up")
    return StoredComparison(id, generation, Comparison(family, tuple(decoded)), "healthy.safetensors")


class StaticSite:
    """A folder of pages that is being served."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def add(self, name: str, body: str, *, script: str = "", version: str = "1") -> str:
        """Add a page with our scripts; gives its address.

        Args:
            name: of the page.
            body: HTML.
            script: a classic script in the page's head.
            version: query of the entry module, as hosts add it.
        """
        html = PAGE.format(style=STYLE, script=script, version=version, body=body)
        (self.folder / f"{name}.html").write_text(html, encoding="utf8")
        return f"{self.url}/{name}.html"

    def add_comparison(self, name: str, stored: StoredComparison, **options: Any) -> str:
        """Add a page like Compare's, with the images of a comparison; gives its address."""
        self.add_images(stored)
        return self.add(name, COMPARE.format(grid=results(stored), numbers=numbers(stored)), **options)

    def add_images(self, stored: StoredComparison) -> None:
        """Serve the images of a comparison where the API would."""
        folder = self.folder / "vae-lab" / "v1" / "images" / stored.id
        folder.mkdir(parents=True, exist_ok=True)
        for result, files in zip(stored.comparison, stored.numbers(), strict=True):
            for i, number in enumerate(files):
                (folder / f"{number}.png").write_bytes(png_bytes(result.images[i]))


class _Handler(SimpleHTTPRequestHandler):
    """Files as the hosts send them: with Last-Modified, and without Cache-Control."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve_static(folder: Path) -> Iterator[StaticSite]:
    """Serve a folder with our scripts and style sheet in it."""
    shutil.copytree(assets.folder() / "javascript", folder / "javascript")
    shutil.copy(assets.folder() / "style.css", folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield StaticSite(folder, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
