"""Readout."""
