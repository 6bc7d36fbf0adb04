"""Real programs, the genuine XLA:TPU compiler in the loop, and the way to problems and back."""
