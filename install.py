"""Run by the WebUI at every start: installs what the host does not have, and moves none of its pins."""

import launch

# Import name -> what pip is asked for. The WebUI itself brings torch, safetensors, gradio, numpy, Pillow.
_NEEDED = {
    "skimage": "scikit-image",
    "platformdirs": "platformdirs",
    "tqdm": "tqdm",
    "fsspec": "fsspec",
    "psutil": "psutil",
}

for module, requirement in _NEEDED.items():
    if not launch.is_installed(module):
        launch.run_pip(f"install {requirement}", f"{requirement} for VAE Lab")
