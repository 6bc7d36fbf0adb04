"""What is claimed of the agent, measured: learning curves, ablations, planning on test families.

    python -m tests.evidence [EXPERIMENT ...]        # or: make evidence

Everything is counted in iterations, games or LNS windows, not in seconds, so that a busy machine
gives the same numbers. `docs/evidence/evidence.jsonl` has a line for each run; what is there is not
run again. `docs/evidence.md` and its pictures are made of it.
"""
