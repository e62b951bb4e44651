"""The training run: loop, checkpoints, validation, progress (needs torch)."""
