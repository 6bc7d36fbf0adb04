"""An assignment as `MsaTensorOverrides` text: what the compiler is told, decision by decision.

The vocabulary is the one that the compiler was seen to obey: a value stays in default memory, a
computed value is pinned in alternate memory, a parameter is prefetched for a use at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.text_encoding import CEscape

from malloc_game import PREFETCH, Assignment, Exclusion, Problem
from malloc_game.problem.definition import index_text

# Asking for a mapping is exact only with these off: prefetches in slices, prefetches across
# programs, and asynchronous slices in place of plain ones.
EXACT_OPTIONS = {
    "xla_tpu_sliced_prefetch_max_slices": "0",
    "xla_msa_max_cross_program_prefetches": "0",
    "xla_msa_enable_sync_slice_replacement": "false",
}
# Otherwise the compiler takes prefetches back, demanded or not, whose uses read few of their bytes.
KEEP_PREFETCHES = {"xla_tpu_msa_inefficient_use_to_copy_ratio": "0"}
# One override that keeps every value in default memory: the program as it is before any mapping.
KEEP_EVERYTHING = (
    'overrides { hlo_position_matcher { instruction_name_regex: ".*" } keep_in_default_memory {} }'
)
_TUPLE_INDEX = re.compile(r"\{([0-9]+(?:,[0-9]+)*)\}\Z")


def _quote(name: str) -> str:
    """A name as a regular expression that matches it alone, inside a quoted proto string.

    Whatever is in the name, the text is ASCII, and neither the string nor the line ends in it.
    """
    pattern = "^" + re.escape(name) + "$"
    return CEscape(pattern.encode(errors="surrogatepass"), as_utf8=False)


def position_matcher(value_name: str) -> str:
    """The filter that matches the position, `name` or `name{index}`, at which a value is made."""
    name = value_name.rstrip("'")  # primes tell values of one name apart
    index = _TUPLE_INDEX.search(name)
    name = name[: index.start()] if index else name
    inside = f'instruction_name_regex: "{_quote(name)}"'
    if index:
        numbers = index.group(1).split(",")
        inside += " tuple_index { " + " ".join(f"index: {i}" for i in numbers) + " }"
    return f"hlo_position_matcher {{ {inside} }}"


def _operand(instruction: str, number: int, index: tuple[int, ...], size: int | None = None) -> str:
    inside = f'instruction_name_regex: "{_quote(instruction)}" operand_number: {number}'
    if size is not None:
        inside += f" size_gte: {size} size_lte: {size}"
    inside += " tuple_index { " + "".join(f"index: {i} " for i in index) + "}"
    return f"hlo_operand_filter {{ {inside} }}"


def _override(where: str, action: str) -> str:
    return f"overrides {{ {where} {action} }}"


def definitions(problem: Problem, value: int) -> list[str]:
    """Names of the arrays that define a value: its first one, then in-place updates in the entry.

    What a loop body makes of a carried value is left out (see `_made_in_loops`): a pin on the value
    that starts the chain holds for the carry.
    """
    names = {problem.values[value].name.rstrip("'"): None}
    for t, p in problem.positions_of_value[value]:
        instruction = problem.instructions[t]
        position = instruction.positions[p]
        if position.is_output and instruction.in_entry:
            names[instruction.name + index_text(position.index)] = None
    return list(names)


def _made_in_loops(problem: Problem, value: int) -> Iterator[str]:
    """Names of the arrays that loop bodies make anew for a value that they carry.

    The compiler may have them in alternate memory, and evict them at the end of the body. Naming
    one that is written in place, where the body also reads the value, aborts the compiler.
    """
    if problem.values[value].is_parameter:
        return
    for t, p in problem.positions_of_value[value]:
        instruction = problem.instructions[t]
        made = instruction.positions[p]
        if made.is_output and not instruction.in_entry:
            is_in_place = any(x.value == value and not x.is_output for x in instruction.positions)
            name = instruction.name + index_text(made.index)
            if not is_in_place and name != problem.values[value].name:
                yield name


def keep_value(problem: Problem, value: int) -> list[str]:
    """Overrides that keep a value in default memory, in loops that carry it too."""
    names = [*definitions(problem, value), *_made_in_loops(problem, value)]
    return [keep(name) for name in (*names, *problem.values[value].loop_names)]


def pin_value(problem: Problem, value: int) -> list[str]:
    """Overrides that demand alternate memory for a computed value.

    In-place updates are named too: between two of them the compiler may evict the value, and
    prefetch it again, when the pin is on the first definition alone.
    """
    return [
        _override(position_matcher(name), "pin_in_alternate_memory {}")
        for name in definitions(problem, value)
    ]


def keep(value_name: str) -> str:
    """The override that keeps the value of this name (`fusion.3{0}`) in default memory."""
    return _override(position_matcher(value_name), "keep_in_default_memory {}")


def _keep_across_loops(problem: Problem, assignment: Assignment, value: int) -> Iterator[str]:
    """Overrides for the uses of a value in default memory that a loop carries.

    What a loop body works on and what comes out of it are values of their own to the compiler: they
    may be prefetched for such a use though what went in is kept.
    """
    places = problem.positions_of_value[value]
    if not places:
        return
    is_parameter = problem.values[value].is_parameter
    home = set() if is_parameter else set(problem.instructions[places[0][0]].loops)
    passed = set(home)
    for t, p in places:
        instruction = problem.instructions[t]
        used, loops = instruction.positions[p], set(instruction.loops)
        size = problem.values[value].size_bytes
        is_carried = loops != home or not passed <= loops
        is_kept = used.is_output or _is_kept_by_its_loop(problem, t, value)
        if is_carried and not is_kept and not _names_more(problem, assignment, t, p):
            where = _operand(instruction.name, used.number, used.index, size)
            yield _override(where, "keep_in_default_memory {}")
        passed |= loops


def _is_kept_by_its_loop(problem: Problem, time: int, value: int) -> bool:
    """Whether a use is inside a loop whose body knows the value by a name of its own."""
    return not problem.instructions[time].in_entry and bool(problem.values[value].loop_names)


def _names_more(problem: Problem, assignment: Assignment, time: int, position: int) -> bool:
    """Whether to name a use would name an output that must not be kept (see `exclusions`).

    One in alternate memory, or one that is written in place: that aborts the compiler.
    """
    instruction = problem.instructions[time]
    used = instruction.positions[position]
    size = problem.values[used.value].size_bytes
    for q, made in enumerate(instruction.positions):
        output = problem.values[made.value]
        if made.is_output and made.index == used.index and output.size_bytes == size:
            is_fresh = output.name == instruction.name + index_text(made.index)
            if assignment.in_alternate(time, q) or not is_fresh:
                return True
    return False


def exclusions(problem: Problem) -> tuple[Exclusion, ...]:
    """What cannot be asked for together: see `malloc_game.problem.Exclusion`.

    To keep one use of a parameter in default memory, while others are in alternate memory, names
    the instruction; that matches the instruction's own output too, and keeps it in default memory,
    unless its size or its tuple index tells it from the operand.
    """
    found = []
    times = [{t for t, _ in places} for places in problem.positions_of_value]
    for t, instruction in enumerate(problem.instructions):
        for used in instruction.positions:
            parameter = problem.values[used.value]
            is_asked = parameter.is_parameter and parameter.may_be_in_alternate
            is_kept = used.is_output or _is_kept_by_its_loop(problem, t, used.value)
            if is_kept or not is_asked or len(times[used.value]) < 2:
                continue
            for made in instruction.positions:
                output = problem.values[made.value]
                if (
                    made.is_output
                    and not output.is_parameter
                    and output.may_be_in_alternate
                    and made.index == used.index
                    and output.size_bytes == parameter.size_bytes
                ):
                    found.append(Exclusion(used.value, t, made.value))
    return tuple(found)


def overrides(
    problem: Problem,
    assignment: Assignment,
    *,
    pin: bool = True,
    prefetch: bool = True,
    strict: bool = True,
    permitted: frozenset[int] = frozenset(),
    loose: frozenset[int] = frozenset(),
) -> str:
    """`MsaTensorOverrides` text that asks the compiler for `assignment`.

    pin: demand alternate memory for computed values that have it, instead of only allowing it.
    prefetch: ask for the assignment's copies at their times, instead of leaving them to XLA.
    strict: demand the copies, to the very time, instead of asking for them.
    permitted: values for which nothing is demanded, only allowed.
    loose: values whose copies are asked for, and not demanded, whatever `strict` is.
    A demand that cannot be met makes the compile fail with `OverrideError`; a permission does not.
    """
    return "\n".join(_overrides(problem, assignment, pin, prefetch, strict, permitted, loose))


def _overrides(
    problem: Problem,
    assignment: Assignment,
    pin: bool,
    prefetch: bool,
    strict: bool,
    permitted: frozenset[int],
    loose: frozenset[int],
) -> Iterator[str]:
    copy_ends = {
        (copy.value, copy.end): copy for copy in assignment.copies if copy.direction == PREFETCH
    }
    # A parameter that a prefetch copies for another value must stay free to be prefetched.
    sources = {
        value.copied_from
        for v, value in enumerate(problem.values)
        if value.copied_at >= 0
        and any(assignment.in_alternate(t, p) for t, p in problem.positions_of_value[v])
    }
    for v, value in enumerate(problem.values):
        places = problem.positions_of_value[v]
        if not places and not value.is_parameter:
            continue  # not ours to place, or nothing that takes time touches it
        inside = [(t, p) for t, p in places if assignment.in_alternate(t, p)]
        if not inside and v not in sources:
            yield from keep_value(problem, v)
            yield from _keep_across_loops(problem, assignment, v)
            continue
        if not value.is_parameter:
            # Only permitted: a copy that is to become a prefetch, since XLA replaces it by itself,
            # and a live-out, whose last use needs default memory and contradicts a pin.
            is_free = value.copied_at >= 0 or value.is_live_out or v in permitted
            if pin and not is_free:
                yield from pin_value(problem, v)
            continue
        asked: set[int] = set()
        for name in value.loop_names:  # the game prefetches nothing for a use in a loop
            yield keep(name)
        for t, p in places:
            position = problem.instructions[t].positions[p]
            name = problem.instructions[t].name
            if position.is_output or _is_kept_by_its_loop(problem, t, v):
                continue
            if not assignment.in_alternate(t, p):
                where = _operand(name, position.number, position.index, value.size_bytes)
                yield _override(where, "keep_in_default_memory {}")
            elif prefetch and (v, t) in copy_ends and t not in asked and v not in permitted:
                asked.add(t)
                start = copy_ends[v, t].start
                time = problem.instructions[start].schedule_time - 1
                timing = " strict_timing: true" if strict and v not in loose else ""
                action = f"prefetch {{ logical_time: {max(time, 0)}{timing} }}"
                yield _override(_operand(name, position.number, position.index), action)
