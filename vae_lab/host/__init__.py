"""The programs that load VAE Lab, behind one interface that does not depend on any of them."""
