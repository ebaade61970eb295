"""Tests of the QA eval."""
