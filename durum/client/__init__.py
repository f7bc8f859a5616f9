"""Calls from outside, and the router that silos use too. Import the modules, not this package."""
