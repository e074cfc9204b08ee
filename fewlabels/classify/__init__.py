"""The task "classify": from few labels and many unlabeled rows to a classifier with its report."""
