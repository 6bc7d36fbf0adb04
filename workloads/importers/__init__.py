"""Programs from anywhere as problems, without the TPU compiler.

`pipeline` imports HLO, StableHLO and JAX functions: `normalization` and `fusion` bring a module to
the form of a compiled one, `liveness` does what alias analysis would, `roofline` stands in for
costs. Start at `pipeline`.
"""

from workloads.importers.pipeline import import_file, import_hlo, import_jax, import_stablehlo

__all__ = ["import_file", "import_hlo", "import_jax", "import_stablehlo"]
