"""What runs in a worker: one batch, one process, and what it notes of its time."""
