"""Makers of what the tests and the demo ship: small trained autoencoders, latents, images."""
