"""The sections of a classifier's report."""
