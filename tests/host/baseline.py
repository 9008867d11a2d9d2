"""Run in a separate process: the WebUI's images for every case without VAE Lab.

python -m tests.host.baseline WEBUI DATA OUT [FLAGS…]
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(webui_dir: Path, data: Path, out: Path, flags: list[str]) -> None:
    from tests.host.cases import CASES, SCRIPTS, fresh, png
    from tests.host.webui import boot

    webui = boot(webui_dir, data, flags)
    assert "vae_lab" not in sys.modules
    made = {case: webui.generate(**fresh(case)).images for case in CASES}
    for name, (title, img2img, arguments) in SCRIPTS.items():
        webui.choose_natively("Automatic")
        made[name] = webui.run_script(title, arguments, **fresh("img2img" if img2img else "txt2img")).images
    for name, images in made.items():
        for i, image in enumerate(images):
            (out / f"{name}-{i}.png").write_bytes(png(image))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
