"""Tests of training/collection."""
