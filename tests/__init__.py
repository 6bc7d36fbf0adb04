"""Tests, as a package of ours: some dependencies install one of the same name."""
