"""What is durable. Import the modules, not this package."""
