"""Toy problems drawn as text, one column for each instruction, and random play of any problem.

    cycles           8   8   8   8      cycles of one execution, everything in default memory
    trips            1   3*  3*  1      executions; * marks a loop body (default: 1, entry)
    reserved         0   4   0   0      KiB at offset 0 that instructions need for themselves
    w   4  param     .   u1  .   u2     4 KiB; u2: operand that saves 2 cycles in alternate memory
    x   4  temp      D1  -   u   .      D1: defined here, saves 1 cycle; -: alive; .: dead
    y   4  out:5     .   D   -   -      live-out, a write-back costs 5 cycles
    k   4  copied:1  -   D8  .   u1     defined by a plain copy of a parameter at time 1
    s   2  sliced:x  .   -   D1  u      defined by a plain slice of x, where it is defined
    f   4  temp!     .   D1  u   .      ! may not be in alternate memory, never asked
    r   4  temp?     .   D1  u   .      ? asked, but the compiler refuses
    p   4  param     u1? .   u1  .      u1?: this use of a parameter is refused
    q   4  temp      .   .   D1~p u     D1~p: excluded while p is there for some use, but not this

Default memory gives 1 KiB in each cycle, so an instruction leaves `cycles - KiB it moves` KiB idle.
Alternate memory is 16 KiB in granules of 1 KiB unless stated.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg

KIB = 1024
# Every random problem of up to 64 instructions fits in both; two shapes keep compiling short.
RANDOM_PADDING = {"T": 96, "D": 128, "C": 6144, "E": 256, "X": 128}
WIDE_PADDING = {"T": 128, "D": 192, "C": 6144, "E": 384, "X": 192}
NUM_STEPS = 128  # of a random game


def target(memory_kib: int = 16, alignment_kib: int = 1, max_copies: int = 0) -> mg.Target:
    """An accelerator whose default memory gives 1 KiB in each cycle."""
    return mg.Target(
        "toy", memory_kib * KIB, alignment_kib * KIB, KIB * 1e9, 1e9, 1,
        max_outstanding_copies=max_copies,
    )  # fmt: skip


def toy(text: str, memory_kib: int = 16, alignment_kib: int = 1, max_copies: int = 0) -> mg.Problem:
    """The problem that `text` draws (see above)."""
    rows = [line.split() for line in text.strip().splitlines()]
    special = {row[0]: row[1:] for row in rows if row[0] in ("cycles", "trips", "reserved")}
    drawn = [row for row in rows if row[0] not in special]
    base = [int(c) for c in special["cycles"]]
    times = len(base)
    trips = special.get("trips", ["1"] * times)
    reserved = [int(kib) * KIB for kib in special.get("reserved", ["0"] * times)]
    positions: list[list[mg.Position]] = [[] for _ in base]
    gains: list[list[int]] = [[] for _ in base]
    values, exclusions = [], []
    numbers = {row[0]: v for v, row in enumerate(drawn)}
    for v, (name, size, kind, *cells) in enumerate(drawn):
        assert len(cells) == times, f"{name}: {len(cells)} columns, not {times}"
        size_bytes = int(float(size) * KIB)
        kind, _, number = kind.rstrip("!?").partition(":")
        alive = [t for t, cell in enumerate(cells) if cell != "."]
        is_parameter = kind == "param"
        values.append(
            mg.Value(
                name=name,
                size_bytes=size_bytes,
                start=0 if is_parameter else alive[0],
                end=times if is_parameter else alive[-1] + 1,
                is_parameter=is_parameter,
                is_live_out=kind == "out",
                may_be_in_alternate="!" not in drawn[v][2],
                is_refused="?" in drawn[v][2],
                write_back_cycles=int(number) if kind == "out" else 0,
                copied_at=int(number) if kind == "copied" else -1,
                sliced_at=alive[0] if kind == "sliced" else -1,
                sliced_from=numbers[number] if kind == "sliced" else -1,
            )
        )
        for t, cell in enumerate(cells):
            drawn_cell, _, excluded_with = cell.partition("~")
            if cell[0] in "Du":
                is_refused = drawn_cell.endswith("?")
                positions[t].append(
                    mg.Position(v, cell[0] == "D", v, (), size_bytes, is_refused=is_refused)
                )
                gains[t].append(int(drawn_cell[1:].rstrip("?") or 0))
            if excluded_with:
                exclusions.append(mg.Exclusion(numbers[excluded_with], t, v))
    # Neighbours with the same trip count are in one loop.
    loops = [() if not trips[t].endswith("*") else (t,) for t in range(times)]
    for t in range(1, times):
        if trips[t].endswith("*") and trips[t] == trips[t - 1]:
            loops[t] = loops[t - 1]
    instructions, tables = [], []
    for t in range(times):
        saved = [
            sum(g for p, g in enumerate(gains[t]) if m >> p & 1) for m in range(1 << len(gains[t]))
        ]
        tables.append(mg.CostTable(tuple(base[t] - s for s in saved), (True,) * len(saved)))
        instructions.append(
            mg.Instruction(
                name=f"op.{t}",
                opcode="fusion",
                schedule_time=t,
                trip_count=int(trips[t].rstrip("*")),
                in_entry=not trips[t].endswith("*"),
                other_bytes=0,
                positions=tuple(positions[t]),
                cost_table=t,
                loops=loops[t],
                reserved_bytes=reserved[t],
            )
        )
    return mg.Problem(
        "toy",
        target(memory_kib, alignment_kib, max_copies),
        tuple(instructions),
        tuple(values),
        tuple(tables),
        tuple(exclusions),
    )


jit_init = jax.jit(mg.init)
jit_step = jax.jit(mg.step)
jit_observe = jax.jit(mg.observe)


class Game:
    """A toy game played by hand; all toys share one compiled `step`."""

    def __init__(self, problem: mg.Problem | str, *, rules: str = "compiler"):
        self.problem = toy(problem) if isinstance(problem, str) else problem
        self.rules = rules
        self.program = mg.encode(self.problem, rules=rules)
        self.state = jit_init(self.program)

    @property
    def asked(self) -> tuple[int, str] | None:
        """Time and value of the decision at hand, None after the end."""
        if self.state.done:
            return None
        value = self.program.decision_value[self.state.position]
        return int(self.program.decision_time[self.state.position]), self.problem.values[value].name

    @property
    def legal(self) -> set[int]:
        """Legal actions of the decision at hand."""
        return set(np.flatnonzero(mg.legal_actions(self.program, self.state)).tolist())

    def play(self, *actions: int) -> int:
        """Take legal actions; returns the reward of the last one."""
        for action in actions:
            assert not self.state.done and action in self.legal, (
                f"{action} is illegal: {self.asked}"
            )
            self.state = jit_step(self.program, self.state, action)
        return int(self.state.reward)

    @property
    def assignment(self) -> mg.Assignment:
        """The mapping so far."""
        return mg.to_assignment(self.problem, self.state, rules=self.rules)

    def chunks(self) -> list[tuple[str, int, int, int]]:
        """Chunks so far: value, offset in KiB, start, end."""
        return [
            (self.problem.values[c.value].name, c.offset // KIB, c.start, c.end)
            for c in self.assignment.chunks
        ]

    def copies(self) -> list[tuple[str, int, int]]:
        """Prefetches so far: value, start, end."""
        return self._copies(mg.PREFETCH)

    def evictions(self) -> list[tuple[str, int, int]]:
        """Evictions so far: value, start, end."""
        return self._copies(mg.EVICTION)

    def _copies(self, direction: str) -> list[tuple[str, int, int]]:
        return [
            (self.problem.values[c.value].name, c.start, c.end)
            for c in self.assignment.copies
            if c.direction == direction
        ]


# Axis letter and fill of every padded array of a Program, as its docstring documents them; None:
# the last entry is repeated.
_PADDED = {
    "table_start": ("T", 0), "trip_count": ("T", 0), "may_start_copy": ("T", False),
    "time_fraction": ("T", 1.0), "demand": ("T", 0.0), "cycles": ("C", 0), "idle": ("C", 0),
    "asked_at": ("D", None), "decision_time": ("D", 0), "decision_value": ("D", mg.UNPLACED),
    "is_parameter": ("D", False), "is_use": ("D", False), "may_copy": ("D", False),
    "must_stay": ("D", False),
    "previous": ("D", mg.UNPLACED), "next_time": ("D", 0), "size": ("D", 0), "copy_units": ("D", 0),
    "end": ("D", 1), "reserved": ("D", 0), "reserved_before": ("D", 0), "write_back": ("D", 0),
    "is_refused": ("D", True), "exclusion_group": ("D", 0), "static_gain": ("D", 0.0),
    "first_effect": ("D", 0), "num_effects": ("D", 0), "effect_time": ("E", 0),
    "effect_bits": ("E", 0), "excluding_group": ("X", mg.UNPLACED),
    "excluding_use": ("X", mg.UNPLACED), "excluded_output": ("X", mg.UNPLACED),
}  # fmt: skip


def pad(program: mg.Program, sizes: dict[str, int]) -> mg.Program:
    """The same program with more padding: `sizes` gives T, D, C, E and X."""

    def padded(name: str, axis: str, fill: float | None) -> np.ndarray:
        array = np.asarray(getattr(program, name))
        fill = array[-1] if fill is None else fill
        extra = sizes[axis] - len(array)
        assert extra >= 0, f"{name} has {len(array)} entries already"
        return np.concatenate([array, np.full((extra, *array.shape[1:]), fill, array.dtype)])

    changes = {name: padded(name, *how) for name, how in _PADDED.items()}
    # "None" is the padded T, and the last (padding) decision.
    next_time = changes["next_time"]
    is_last = (next_time >= program.max_times) | (np.arange(sizes["D"]) >= program.max_decisions)
    changes["next_time"] = np.where(is_last, sizes["T"], next_time).astype(np.int32)
    placed_by = np.full((sizes["T"], program.position_decision.shape[1]), sizes["D"] - 1, np.int32)
    placed_by[: program.max_times] = np.where(
        program.position_decision == program.max_decisions - 1,
        sizes["D"] - 1,
        program.position_decision,
    )
    changes["position_decision"] = placed_by
    return program.replace(**{name: jnp.asarray(array) for name, array in changes.items()})


@chex.dataclass(frozen=True)
class Trace:
    """What was seen at each of the S = NUM_STEPS steps of a game (leading axis S)."""

    state: mg.GameState  # before the action
    action: chex.Array  # int32[S]
    illegal_is_drop: chex.Array  # bool[S], every illegal action gave exactly DROP's state
    next_state: mg.GameState


def _same(a: mg.GameState, b: mg.GameState) -> chex.Array:
    return jnp.stack(
        [jnp.all(x == y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
    ).all()


@jax.jit
def random_game(
    program: mg.Program, key: chex.Array, bias: chex.Array
) -> tuple[mg.GameState, Trace]:
    """A game of random legal actions (`bias`: float32[3], logits), `NUM_STEPS` steps long."""

    def move(state: mg.GameState, key: chex.Array) -> tuple[mg.GameState, Trace]:
        legal = mg.legal_actions(program, state)
        action = jax.random.categorical(key, jnp.where(legal, bias, -jnp.inf))
        after = jax.vmap(mg.step, (None, None, 0))(program, state, jnp.arange(3))
        pick = lambda a: jax.tree.map(lambda x: x[a], after)  # noqa: E731
        same = jnp.stack([legal[a] | _same(pick(a), pick(mg.DROP)) for a in range(3)])
        chosen = pick(action)
        return chosen, Trace(
            state=state, action=action, illegal_is_drop=same.all(), next_state=chosen
        )

    return jax.lax.scan(move, mg.init(program), jax.random.split(key, NUM_STEPS))
