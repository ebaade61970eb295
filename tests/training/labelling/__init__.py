"""Tests of training/labelling."""
