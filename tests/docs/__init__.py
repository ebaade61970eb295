"""Tests of the README and the docs."""
