"""Tests of training/answering."""
