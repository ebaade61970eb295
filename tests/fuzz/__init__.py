"""Random requests of all kinds, and what must hold for each."""
