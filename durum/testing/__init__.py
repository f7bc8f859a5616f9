"""Virtual time, faulty networks and stores, clusters in one process. Import the modules, not this package."""
