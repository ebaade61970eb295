"""Ray, with real processes on this machine; skipped where it isn't installed."""
