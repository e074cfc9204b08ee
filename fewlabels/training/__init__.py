"""The loop, the optimizers, the schedules, the checkpoints and the processes."""
