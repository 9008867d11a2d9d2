"""The programs that load VAE Lab, behind one interface. The only importer of the WebUI's ``modules``."""
