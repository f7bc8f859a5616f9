"""What users write against. Import the modules, not this package."""
