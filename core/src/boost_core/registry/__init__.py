"""Finds plugins, loads those that are asked for, and calls their hooks."""
