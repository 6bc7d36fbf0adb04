"""How well predictions hold: in the compiler, and on a device.

`measurement` compiles mappings that nothing was learned from, `report` makes tables of many such
measurements, `timing` times two executables side by side on a TPU.
"""

from workloads.fidelity.measurement import Fidelity, measure

__all__ = ["measure", "Fidelity"]
