"""Random problems for tests and benchmarks: small, valid, contended, not monotone."""

from __future__ import annotations

import dataclasses

import numpy as np

from malloc_game.problem.definition import (
    MAX_PRICED_POSITIONS,
    CostTable,
    Exclusion,
    Instruction,
    Position,
    Problem,
    Value,
)
from malloc_game.problem.target import MIB, Target

TOY_TARGET = Target("toy", 4 * MIB, 1024, 100e9, 1e9, 1, "made up for tests")


def random_problem(
    seed: int,
    num_instructions: int = 40,
    target: Target = TOY_TARGET,
    loop: bool = True,
    limits: bool = False,
) -> Problem:
    """A random program of `num_instructions` instructions, with parameters, live-outs and a loop.

    Sizes are such that about twice as much is wanted in alternate memory as fits. Cycles of a
    placement are random and not monotone: sometimes alternate memory is slower. Some uses are
    refused, and some placements exclude each other. limits: few copies may be under way at one
    time, and some instructions need alternate memory for themselves.
    """
    rng = np.random.default_rng(seed)
    times = num_instructions
    num_values = max(2, int(times * 1.3))
    loop_start, loop_end = sorted(rng.integers(0, times, 2)) if loop and times > 8 else (0, 0)
    # Plain copies of parameters, each an instruction of its own outside the loop.
    copy_times = [
        t for t in range(times - 1) if not loop_start < t < loop_end and rng.random() < 0.08
    ]
    others = np.setdiff1d(np.arange(times), copy_times)
    at = lambda t: int(others[min(int(np.searchsorted(others, t)), len(others) - 1)])  # noqa: E731
    to_copy = list(copy_times)
    sizes = rng.lognormal(np.log(target.alternate_memory_bytes / 12), 1.0, num_values)
    readers: list[list[tuple[int, bool]]] = [[] for _ in range(times)]
    values = []
    for v in range(num_values):
        size = int(sizes[v]) if rng.random() > 0.05 else int(rng.integers(0, 2000))
        is_parameter = bool(rng.random() < 0.4)
        first = at(rng.integers(0, times))
        span = int(min(times - 1, first + rng.geometric(0.15)))
        uses = sorted({at(x) for x in rng.integers(first, span + 1, rng.integers(1, 4))})
        copied = not is_parameter and bool(to_copy) and to_copy[0] < first
        if copied and (not uses or any(loop_start < u < loop_end for u in uses)):
            copied = False
        if copied:
            first = to_copy.pop(0)
        if not is_parameter:
            readers[first].append((v, True))
            uses = [u for u in uses if u > first]
        for u in uses:
            readers[u].append((v, False))
        live_out = bool(not is_parameter and rng.random() < 0.1)
        values.append(
            Value(
                name=f"value.{v}",
                size_bytes=size,
                start=0 if is_parameter or copied else first,
                end=times if live_out or is_parameter else max([first, *uses]) + 1,
                is_parameter=is_parameter,
                is_live_out=live_out,
                may_be_in_alternate=bool(
                    0 < size <= target.alternate_memory_bytes and rng.random() < 0.95
                ),
                write_back_cycles=int(size / target.default_bytes_per_cycle) if live_out else 0,
                copied_at=first if copied else -1,
            )
        )
    tables, instructions = [], []
    for t in range(times):
        positions = tuple(
            Position(
                value=v,
                is_output=is_output,
                number=0 if is_output else i,
                index=(),
                size_bytes=values[v].size_bytes,
                is_refused=bool(not is_output and values[v].is_parameter and rng.random() < 0.05),
            )
            for i, (v, is_output) in enumerate(readers[t])
        )
        tables.append(_random_table(rng, positions, target, is_copy=t in copy_times))
        instructions.append(
            Instruction(
                name=f"fusion.{t}",
                opcode="copy" if t in copy_times else "fusion",
                schedule_time=2 * t + 1,
                trip_count=5 if loop_start < t < loop_end else 1,
                in_entry=not loop_start < t < loop_end,
                other_bytes=int(rng.integers(0, 10_000)),
                positions=positions,
                cost_table=t,
            )
        )
    exclusions = [
        Exclusion(used, t, made)
        for t in range(times)
        for used, is_output in readers[t]
        if not is_output and values[used].is_parameter
        for made, is_made in readers[t]
        if is_made and not values[made].is_parameter and rng.random() < 0.3
    ]
    if limits:
        target = dataclasses.replace(target, max_outstanding_copies=int(rng.integers(1, 4)))
        shares = rng.choice([0, 0, 0, 0.1, 0.4], times)
        instructions = [
            dataclasses.replace(i, reserved_bytes=int(share * target.alternate_memory_bytes))
            for i, share in zip(instructions, shares, strict=True)
        ]
    return Problem(
        f"random-{seed}",
        target,
        tuple(instructions),
        tuple(values),
        tuple(tables),
        tuple(exclusions),
    )


def _random_table(
    rng: np.random.Generator, positions: tuple[Position, ...], target: Target, is_copy: bool
) -> CostTable:
    """Compute plus a random share of each transfer, with noise that breaks monotonicity.

    A copy takes the time of its transfers, and none where a prefetch takes its place.
    """
    if is_copy:
        moved = 2 * sum(p.size_bytes for p in positions)
        cycles = (int(moved / target.default_bytes_per_cycle), *[0] * len(positions))
        return CostTable(cycles, (True,) * len(cycles))
    bits = min(len(positions), MAX_PRICED_POSITIONS)
    transfer = [p.size_bytes / target.default_bytes_per_cycle for p in positions]
    compute = rng.exponential(2.0 * (sum(transfer) + 100))
    weight = rng.uniform(0.2, 1.2, len(transfer))
    by_mask = []
    for mask in range(1 << bits):
        total = compute + sum(
            w * c for i, (w, c) in enumerate(zip(weight, transfer, strict=True))
            if not mask >> i & 1
        )  # fmt: skip
        by_mask.append(int(total * rng.uniform(0.95, 1.1)))
    return CostTable(tuple(by_mask), (True,) * len(by_mask))
