"""Writes pages and pictures of the documentation from runs and measurements."""
