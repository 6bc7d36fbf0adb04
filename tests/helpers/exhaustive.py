"""The best mapping of a tiny problem by trying everything: slow, obvious, and judged by `mg.check`.

Nothing is shared with the solvers or the game. Placements are tried from the fastest on; the first
for which copies, chunks and offsets can be found that pass the checker is the optimum.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import malloc_game as mg

MAX_DECISIONS = 14


def optimum(problem: mg.Problem) -> tuple[float, mg.Assignment]:
    """Latency in cycles and mapping of the best that the rules allow.

    Over: each computed value in or out of alternate memory; each use of a parameter in the entry in
    or out; one chunk for several uses or separate ones; any start of each copy; any offsets.
    """
    decisions = decisions_of(problem)
    assert len(decisions) <= MAX_DECISIONS, f"{len(decisions)} decisions are too many to try"
    patterns = []
    for chosen in itertools.product([False, True], repeat=len(decisions)):
        taken = [d for d, is_in in zip(decisions, chosen, strict=True) if is_in]
        masks = [0] * len(problem.instructions)
        for _, places in taken:
            for t, p in places:
                masks[t] |= 1 << p
        patterns.append((_cycles(problem, tuple(masks), taken), tuple(masks), taken))
    for cycles, masks, taken in sorted(patterns, key=lambda pattern: pattern[0]):
        found = _realise(problem, masks, taken)
        if found is not None:
            judged = mg.latency(problem, found).cycles
            assert judged == cycles, (judged, cycles)
            return judged, found
    raise AssertionError("everything in default memory is always possible")


# A value, and the positions that one decision about it moves.
Decision = tuple[int, tuple[tuple[int, int], ...]]


def decisions_of(problem: mg.Problem) -> list[Decision]:
    """What `optimum` tries in and out of alternate memory."""
    found: list[Decision] = []
    for v, value in enumerate(problem.values):
        places = problem.positions_of_value[v]
        if not value.may_be_in_alternate or value.is_refused:
            continue
        if value.is_parameter:
            times = sorted({t for t, _ in places if problem.instructions[t].in_entry})
            found += [(v, tuple(x for x in places if x[0] == t)) for t in times]
        elif any(t != value.copied_at for t, _ in places):
            found.append((v, places))
    return found


def _cycles(problem: mg.Problem, masks: tuple[int, ...], taken: list[Decision]) -> float:
    """Latency of a placement whose copies are never waited for."""
    cycles = sum(
        x.trip_count * problem.instruction_cycles(t, masks[t])
        for t, x in enumerate(problem.instructions)
    )
    for v, places in taken:
        if any(problem.instructions[t].positions[p].is_output for t, p in places):
            cycles += problem.values[v].write_back_cycles
    return float(cycles)


def _realise(
    problem: mg.Problem, masks: tuple[int, ...], taken: list[Decision]
) -> mg.Assignment | None:
    if _is_hopeless(problem, masks, taken):
        return None
    uses: dict[int, list[int]] = {}  # of each parameter in alternate memory
    fixed = []  # rectangles of computed values: value, start, end
    copied = []  # computed values that a copy fills: value, first use, end
    for v, places in taken:
        value = problem.values[v]
        if value.is_parameter:
            uses.setdefault(v, []).append(places[0][0])
        elif value.copied_at >= 0:
            first = min(t for t, _ in places if t != value.copied_at)
            copied.append((v, first, value.end))
        else:
            fixed.append((v, value.start, value.end))
    for split in itertools.product(*(_splits(v, times) for v, times in uses.items())):
        filled = [*copied, *itertools.chain(*split)]
        choices = [_starts(problem, v, t) for v, t, _ in filled]
        # Bandwidth is never shorter than with every copy as early as can be.
        if not all(choices) or _in_time(problem, masks, filled, [c[-1] for c in choices]) is None:
            continue
        for starts in itertools.product(*choices):
            chunks = [(v, s, e) for s, (v, _, e) in zip(starts, filled, strict=True)]
            if not _fits_at_all_times(problem, [*fixed, *chunks]):
                continue
            copies = _in_time(problem, masks, filled, starts)
            if copies is None:
                continue
            for packed in _packings(problem, [*fixed, *chunks]):
                assignment = mg.Assignment(masks, packed, copies, "exhaustive")
                if not mg.check(problem, assignment):
                    return assignment
    return None


def _in_time(
    problem: mg.Problem,
    masks: tuple[int, ...],
    filled: list[tuple[int, int, int]],
    starts: Sequence[int],
) -> tuple[mg.Copy, ...] | None:
    """The copies that fill chunks `(value, first use, end)`; None if one is late."""
    copies = [
        mg.Copy(v, s, t, problem.values[v].size_bytes)
        for s, (v, t, _) in zip(starts, filled, strict=True)
    ]
    # Of those that start together the most urgent goes first: no order is better.
    copies.sort(key=lambda c: (c.start, c.end))
    found = mg.check(problem, mg.Assignment(masks, (), tuple(copies)))
    return None if any(violation.kind == "bandwidth" for violation in found) else tuple(copies)


def _fits_at_all_times(problem: mg.Problem, rectangles: list[tuple[int, int, int]]) -> bool:
    return all(
        sum(problem.values[v].size_bytes for v, start, end in rectangles if start <= t < end)
        <= problem.target.alternate_memory_bytes
        for t in range(len(problem.instructions))
    )


def _is_hopeless(problem: mg.Problem, masks: tuple[int, ...], taken: list[Decision]) -> bool:
    """Whether no copies and offsets can help: what is in use does not fit, or is refused."""
    forbidden = {"not_allowed", "excluded"}
    if any(x.kind in forbidden for x in mg.check(problem, mg.Assignment(masks))):
        return True
    for t in range(len(problem.instructions)):
        alive = set()
        for v, places in taken:
            value = problem.values[v]
            first = min((u for u, _ in places if u != value.copied_at), default=value.start)
            start = first if value.copied_at >= 0 else value.start
            in_use = t == places[0][0] if value.is_parameter else start <= t < value.end
            if in_use:
                alive.add(v)
        if sum(problem.values[v].size_bytes for v in alive) > problem.target.alternate_memory_bytes:
            return True
    return False


def _splits(v: int, times: list[int]) -> Iterator[list[tuple[int, int, int]]]:
    """All ways to serve uses by chunks one after another: (value, first use, end) of each."""
    for cuts in itertools.product([False, True], repeat=len(times) - 1):
        chunks = [(v, times[0], times[0] + 1)]
        for t, cut in zip(times[1:], cuts, strict=True):
            chunks.append((v, t, t + 1)) if cut else chunks.append((*chunks.pop()[:2], t + 1))
        yield chunks


def _starts(problem: mg.Problem, v: int, use: int) -> list[int]:
    """Every start of a copy for a use, the latest first."""
    first = problem.values[v].start
    return [t for t in range(use - 1, first - 1, -1) if problem.instructions[t].in_entry]


def _packings(
    problem: mg.Problem, rectangles: list[tuple[int, int, int]]
) -> Iterator[tuple[mg.Chunk, ...]]:
    """Offsets for (value, start, end): in every order, each as low as what is below it allows.

    Push every chunk of any packing down, lowest first: that gives one of these.
    """
    alignment = problem.target.alignment_bytes
    for order in itertools.permutations(rectangles):
        chunks: list[mg.Chunk] = []
        for v, start, end in order:
            below = [c.offset + c.size for c in chunks if c.start < end and start < c.end]
            offset = -(-max(below, default=0) // alignment) * alignment
            size = problem.values[v].size_bytes
            if offset + size > problem.target.alternate_memory_bytes:
                break
            chunks.append(mg.Chunk(v, offset, size, start, end))
        if len(chunks) == len(rectangles):
            yield tuple(chunks)
            # Other packings of the same rectangles are valid or not for the same reasons.
            return
