"""What is true of any task's run: its folder, what continues it, `fit` and `bench`."""
