"""The command line. Import the modules, not this package."""
