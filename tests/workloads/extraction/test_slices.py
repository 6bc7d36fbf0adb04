"""XLA's asynchronous slices in place of plain ones, and values that it splits between cores.

Read from fragments in the form of what the compiler writes for `mamba` on v5p; that it really does
is a case of `test_mapping`.
"""

from __future__ import annotations

import pytest

import malloc_game
from malloc_game import PREFETCH, TARGETS, Chunk, check
from malloc_game.problem.files import from_json, to_json
from workloads.compiler.parsing import HLO_TEXT, to_module_proto
from workloads.compiler.session import Compiled
from workloads.costs.store import CostStore
from workloads.extraction.buffers import parse_dump
from workloads.extraction.extraction import Extraction
from workloads.extraction.mapping import split_sizes
from workloads.extraction.structure import Structure
from workloads.hlo.module import Module

HALF = 8 * 512 * 2048 * 2  # bytes
_WHOLE, _HALF = "bf16[8,512,4096]{2,1,0:T(8,128)(2,1)", "bf16[8,512,2048]{2,1,0:T(8,128)(2,1)"
_LOWER, _UPPER = (f"slice={{[0:8], [0:512], [{a}:{a + 2048}]}}" for a in (0, 2048))
PLAIN = f"""HloModule sliced, is_scheduled=true

ENTRY main {{
  x = {_WHOLE}}} parameter(0)
  fusion = {_WHOLE}}} negate(x)
  lower = {_HALF}}} slice(fusion), {_LOWER}
  upper = {_HALF}}} slice(fusion), {_UPPER}
  first = {_HALF}}} exponential(lower)
  second = {_HALF}}} negate(upper)
  third = {_HALF}}} add(first, lower)
  ROOT last = {_HALF}}} add(third, second)
}}
"""
_STARTED = f"(({_WHOLE}}}), {_HALF}S(1)}}, s32[]{{:S(2)}})"
REPLACED = f"""HloModule sliced, is_scheduled=true

ENTRY main {{
  x = {_WHOLE}}} parameter(0)
  fusion = {_WHOLE}}} negate(x)
  slice-start = {_STARTED} slice-start(fusion), {_LOWER}
  slice-start.1 = {_STARTED} slice-start(fusion), {_UPPER}
  slice-done = {_HALF}S(1)}} slice-done(slice-start)
  first = {_HALF}}} exponential(slice-done)
  slice-done.1 = {_HALF}S(1)}} slice-done(slice-start.1)
  second = {_HALF}}} negate(slice-done.1)
  third = {_HALF}}} add(first, slice-done)
  ROOT last = {_HALF}}} add(third, second)
}}
"""
NAMES = ("x", "fusion", "lower", "upper", "first", "second", "third", "last")
USES = {  # value: size, its uses
    "x": (2 * HALF, [("fusion", 0)]),
    "fusion": (2 * HALF, [("lower", 0), ("upper", 0)]),
    "lower": (HALF, [("first", 0), ("third", 1)]),
    "upper": (HALF, [("second", 0)]),
    "first": (HALF, [("third", 0)]),
    "second": (HALF, [("last", 1)]),
    "third": (HALF, [("last", 0)]),
    "last": (HALF, []),
}
# Rows of the slices' results, under what is sliced; that of `lower` in two parts.
ALLOCATIONS = ["1,{},0,2,4", "1,{},0,4,6", "1,{},16777216,3,5"]


def _msa(allocations: list[str]) -> dict[str, str]:
    buffers = [
        f'{i},"<{i} {name}>",0,{size},{i},"{";".join(str(NAMES.index(n)) for n, _ in uses)}",'
        f'"{";".join(f"{n}, operand {number}" for n, number in uses)}",0'
        for i, (name, (size, uses)) in enumerate(USES.items())
    ]
    header = (
        "buffer_id,buffer_name,alt_mem_benefit,size,definition_time,use_times,use_names,is_scoped"
    )
    return {
        "scheduleinfo": "\n".join(
            ["time,instruction_name", *(f"{i},{n}" for i, n in enumerate(NAMES))]
        ),
        "bufferinfo": "\n".join([header, *buffers]),
        "allocinfo": "\n".join(
            ["buffer_id,size,offset,start_time,end_time", *(a.format(HALF) for a in allocations)]
        ),
    }  # fmt: skip


def _compiled(text: str, allocations: list[str]) -> Compiled:
    hlo = to_module_proto(text, HLO_TEXT)
    return Compiled(hlo, b"", _msa(allocations), {}, "v5p", {"libtpu": "none"}, 0.0, {}, False)


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return Extraction(_compiled(PLAIN, []), "sliced", CostStore())


@pytest.fixture(scope="module")
def found(extraction):
    return extraction.assignment_of(_compiled(REPLACED, ALLOCATIONS), "xla_default")


def test_slices_are_marked_with_what_they_are_cut_from(extraction):
    values = {v.name: v for v in extraction.problem.values}
    names = [i.name for i in extraction.problem.instructions]
    sliced = {n: (names[v.sliced_at], v.sliced_from) for n, v in values.items() if v.sliced_at >= 0}
    fusion = list(values).index("fusion")
    assert sliced == {"lower": ("lower", fusion), "upper": ("upper", fusion)}


def test_the_results_of_slices_have_the_memory_that_the_dump_lists_under_their_source(
    extraction, found
):
    problem = extraction.problem
    names = [i.name for i in problem.instructions]
    first, second, third = map(names.index, ("first", "second", "third"))
    number = {v.name: i for i, v in enumerate(problem.values)}
    start = names.index("fusion") + 1
    assert sorted(found.chunks, key=lambda c: c.offset) == [
        Chunk(number["lower"], 0, HALF, start, third + 1),
        Chunk(number["upper"], 16 << 20, HALF, start, second + 1),
    ]
    copies = [(c.value, c.start, c.end, c.size, c.direction) for c in found.copies]
    assert copies == [
        # Before `first`, with only what is not there in between.
        (number["lower"], start, start, HALF, PREFETCH),
        (number["upper"], start, first + 1, HALF, PREFETCH),
    ]
    assert check(problem, found, expressible=False) == []


def test_nothing_is_charged_for_a_slice_that_is_not_there(extraction, found):
    problem, target = extraction.problem, TARGETS["v5p"]
    # All costs are those of default-memory traffic: two slices that read 32 and write 16 MiB go,
    # and so do three reads of 16 MiB. Nothing is idle, so both copies are waited for.
    default = malloc_game.latency(problem, malloc_game.all_default(problem)).cycles
    ours = malloc_game.latency(problem, found)
    saved = (2 * 3 * HALF + 3 * HALF) / target.default_bytes_per_cycle
    assert ours.instruction_cycles == pytest.approx(default - saved, abs=10)
    assert ours.wait_cycles == pytest.approx(2 * HALF / target.default_bytes_per_cycle, abs=10)


def test_files_hold_slices(extraction):
    problem = extraction.problem
    again = tuple(from_json(type(v), to_json(v), "value") for v in problem.values)
    assert again == problem.values


def test_a_split_layout_is_placement_and_has_parts():
    text = PLAIN.replace("parameter(0)", "parameter(0)\n  r = {} parameter(1)")
    modules = {}
    for split in ("", "SC(0:8)", "SC(1:512,1024)", "SC(0:12)"):
        shape = f"f32[1536,16]{{0,1:T(8,128)S(1){split}}}"
        modules[split] = Module(to_module_proto(text.replace("{}", shape), HLO_TEXT))
    leaves = {
        split: next(i for i in m.instructions.values() if i.name == "r").leaves[()]
        for split, m in modules.items()
    }
    assert {leaf.size_bytes for leaf in leaves.values()} == {1536 * 16 * 4}
    parts = [1536 * 16 * 4, 1536 * 8 * 4, 512 * 16 * 4, 1536 * 16 * 4]  # 12 rows are padded to 16
    assert [leaf.part_bytes for leaf in leaves.values()] == parts
    assert len({m.computation_fingerprint(m.entry_id) for m in modules.values()}) == 1


def test_a_value_that_a_compile_splits_is_found_where_it_is_read():
    text = """HloModule halves, is_scheduled=true

ENTRY main {
  rate = f32[1536,16]{0,1:T(8,128)} parameter(0)
  ROOT last = f32[1536,16]{0,1:T(8,128)} negate(rate)
}
"""
    msa = {
        "scheduleinfo": "time,instruction_name\n0,rate\n1,last",
        "bufferinfo": "buffer_id,buffer_name,size,definition_time,use_times,use_names,is_scoped\n"
        '0,"<0 rate>",98304,0,"1","last, operand 0",0\n1,"<1 last>",98304,1,"","",0',
    }
    plain = Module(to_module_proto(text, HLO_TEXT))
    structure = Structure(plain, parse_dump(msa), TARGETS["v5p"], "halves")
    copied = text.replace(
        "  ROOT last = f32[1536,16]{0,1:T(8,128)} negate(rate)",
        "  start = (f32[1536,16]{0,1:T(8,128)S(1)SC(0:8)}, f32[1536,16]{0,1:T(8,128)},"
        " u32[]{:S(2)}) copy-start(rate)\n"
        "  done = f32[1536,16]{0,1:T(8,128)S(1)SC(0:8)} copy-done(start)\n"
        "  ROOT last = f32[1536,16]{0,1:T(8,128)} negate(done)",
    )
    (rate,) = [i for i, v in enumerate(structure.values) if v.name == "rate"]
    assert split_sizes(structure, Module(to_module_proto(copied, HLO_TEXT))) == {rate: 49152}
    assert split_sizes(structure, plain) == {}
