"""Broken and hostile files for every reader: what is a valid one, how to break it, who reads it."""
