"""The HTTP routes and their models."""
