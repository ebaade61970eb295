"""Tests of the corpus eval."""
