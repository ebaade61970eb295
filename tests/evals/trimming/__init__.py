"""Tests of the trimming eval."""
