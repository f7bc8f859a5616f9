"""Who owns what. Import the modules, not this package."""
