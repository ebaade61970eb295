"""Chunk states kept between calls, in memory and on disk, as they are or in eight bits.

`ChunkCache` is the public class. Imports `reading` for what a state is, `files` and `errors`; the
command line and evals import it.
"""
