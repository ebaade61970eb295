"""Calibrating."""
