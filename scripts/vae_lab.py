"""The file that the WebUI executes. Everything is in the package ``vae_lab``.

It must be imported here: the extension's folder is on ``sys.path`` only while scripts load.
"""

from vae_lab import extension
from vae_lab.ui.pages import WebuiPages

pages = WebuiPages()
VaeLabScript = extension.load(pages)
VaeLabRoundTrip = extension.load_extras(pages)
