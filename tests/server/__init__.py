"""Tests of the HTTP server: real processes and connections, unmodified clients."""
