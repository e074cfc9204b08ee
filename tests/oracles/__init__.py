"""Slow float64 NumPy references, written from the formulas without sight of the library."""
