"""Tests of training/calibrating."""
