"""From compiled modules to a `Problem`, and from any compile to an `Assignment`.

`pipeline` compiles a program twice and extracts it. `extraction` is the way between a program in
the
game and the same in the compiler: `structure` and `buffers` read what it is, `mapping` what a
compile made of it, `all_default` what it is before memory-space assignment. `dry_run` asks the
compiler for placements only, `probing` what it refuses. Start at `pipeline`.
"""

from workloads.extraction.extraction import Extraction
from workloads.extraction.pipeline import Extracted, extract, extract_session

__all__ = ["extract", "extract_session", "Extracted", "Extraction"]
