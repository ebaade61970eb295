"""Tests of readout."""
