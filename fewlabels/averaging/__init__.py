"""Averages of parameters over time."""
