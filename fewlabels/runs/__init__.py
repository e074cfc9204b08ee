"""What `fit` does: the phases of a run, each of which continues where it was stopped."""
