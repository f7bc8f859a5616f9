"""The host of grains. Import the modules, not this package."""
