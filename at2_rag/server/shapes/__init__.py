"""Wire shapes, one module each: what a request says, and what its answer looks like.

`ranking` has what they share, `paths` says which shape a request of a path has, and `error_forms`
what errors look like in each. A shape translates and does no maths.
"""
