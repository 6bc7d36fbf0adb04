"""What the cycles of this version are, in the words that every output uses."""

# The compiler's tile chooser compares window sizes by it; the project took it for the time of an
# instruction.
ESTIMATOR = "window_config.estimated_cycles"
NO_CLAIM = (
    "No speed-up is claimed: these cycles are the estimate of the compiler's tile chooser, and its"
    " final machine code contradicts them. A mapping of decode_gqa on tpu7x that is 2.0x as fast as"
    " XLA's default by the estimate is about 0.75x by machine code."
)
