"""Asking the compiler and learning from its answers.

`verification` compiles a mapping and says what became of it, `calibration` chooses mappings whose
compiles teach most, `correction` plans, compiles and learns until both agree, and `learned_costs`
does all of that for a program. Start at `verification`.
"""

from workloads.loop.calibration import calibrate
from workloads.loop.correction import correct
from workloads.loop.learned_costs import learn_costs
from workloads.loop.verification import Preview, Verification, preview, verify

__all__ = ["calibrate", "correct", "learn_costs", "preview", "verify", "Preview", "Verification"]
