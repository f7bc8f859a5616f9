"""HTTP around a cluster. Import the modules, not this package."""
