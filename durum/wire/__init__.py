"""Bytes, links, and who may connect. Import the modules, not this package."""
