"""HLO, StableHLO and JAX functions become problems without the TPU compiler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from workloads import WorkloadError, import_hlo, import_jax, import_stablehlo
from workloads.compiler import parsing
from workloads.compiler.process import ChildProcess
from workloads.compiler.session import CompilerSession
from workloads.costs.store import CostStore
from workloads.extraction.all_default import all_default_options
from workloads.extraction.extraction import Extraction
from workloads.hlo import xla_bindings
from workloads.importers.pipeline import describe, import_file

MIB = 1 << 20
TARGET = "v4"
BYTES_PER_CYCLE = mg.TARGETS[TARGET].default_bytes_per_cycle


@pytest.fixture(scope="module", autouse=True)
def one_parser():
    """A process for all texts, not for each; there is a new one when XLA's parser has crashed."""
    made = []

    def parser(environment):
        if not made or not made[-1].is_alive():
            made.append(ChildProcess(environment))
            made[-1].kill = lambda: None
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "ChildProcess", parser)
        yield
    for child in made:
        ChildProcess.kill(child)


def hlo(body: str, header: str = "HloModule m", others: str = "") -> str:
    """A module whose entry computation has these lines."""
    return f"{header}\n{others}\nENTRY e {{\n{body}\n}}\n"


def by_name(problem: mg.Problem) -> dict[str, mg.Value]:
    return {v.name: v for v in problem.values}


def costs(problem: mg.Problem, name: str) -> tuple[int, ...]:
    (found,) = (i for i in problem.instructions if i.name == name)
    return problem.cost_tables[found.cost_table].cycles


CHAIN = hlo("""
  p = f32[1024,1024]{1,0} parameter(0)
  q = f32[1024,1024]{1,0} parameter(1)
  a = f32[1024,1024]{1,0} add(p, q)
  b = f32[1048576]{0} reshape(a)
  c = f32[1048576]{0} tanh(b)
  ROOT r = (f32[1048576]{0}, f32[1024,1024]{1,0}) tuple(c, a)""")


@pytest.fixture(scope="module")
def chain() -> mg.Problem:
    return import_hlo(CHAIN, TARGET)


# -- values and schedule ---------------------------------------------------------------------


def test_bitcasts_and_tuples_share_the_value_of_what_they_name(chain):
    assert [i.name for i in chain.instructions] == ["a", "c"]
    values = by_name(chain)
    assert values.keys() == {"p", "q", "a", "c"}
    assert (values["a"].start, values["a"].end) == (0, 2)
    assert {n for n, v in values.items() if v.is_parameter} == {"p", "q"}
    assert {n for n, v in values.items() if v.is_live_out} == {"a", "c"}


def test_values_have_the_shape_of_what_defines_them(chain):
    assert {n: v.shape for n, v in by_name(chain).items()} == {
        "p": "f32[1024,1024]", "q": "f32[1024,1024]", "a": "f32[1024,1024]", "c": "f32[1048576]",
    }  # fmt: skip


def test_a_problem_says_what_stands_in_for_the_compiler(chain):
    found = chain.provenance
    assert found["costs"]["roofline"] == 2 and found["costs"]["estimated_cycles"] == 0
    assert found["imported"] == "HLO text" and found["schedule"].startswith("topological")
    assert "roofline for 2 of 2 instructions (275 TFLOP/s, 1228 GB/s)" in describe(chain)
    assert not any(any(t.known) for t in chain.cost_tables)


def test_an_imported_problem_can_be_saved_and_played(chain, tmp_path):
    mg.save_problem(chain, tmp_path / "p.json.gz")
    again = mg.load_problem(tmp_path / "p.json.gz")
    assert again == chain.replace(provenance=again.provenance)
    assert dict(again.provenance) == dict(chain.provenance)
    assert int(mg.encode(chain).num_decisions) == 4


def test_text_and_proto_give_the_same_problem(chain):
    proto = parsing.to_module_proto(CHAIN, parsing.HLO_TEXT)
    assert parsing.kind_of(proto) == parsing.HLO_PROTO
    again = import_hlo(proto, TARGET)
    assert again.replace(provenance={}) == chain.replace(provenance={})


def test_a_schedule_in_the_module_is_kept():
    lines = """
  p = f32[1024]{0} parameter(0)
  c = f32[1024]{0} cosine(p)
  s = f32[1024]{0} sine(p)
  ROOT r = f32[1024]{0} add(s, c)"""
    given = import_hlo(hlo(lines, "HloModule m, is_scheduled=true"), TARGET)
    assert [i.name for i in given.instructions] == ["c", "s", "r"]
    assert given.provenance["schedule"] == "given"


def test_sizes_are_padded_by_the_layouts_tiles():
    lines = """
  p = bf16[100,100]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT r = bf16[100,100]{1,0:T(8,128)(2,1)} tanh(p)"""
    assert by_name(import_hlo(hlo(lines), TARGET))["p"].size_bytes == 104 * 128 * 2


def test_what_alternate_memory_held_in_the_module_is_free_to_be_placed_anew():
    lines = """
  p = f32[1024]{0} parameter(0)
  s = (f32[1024]{0:S(3)}, f32[1024]{0}, u32[]) copy-start(p)
  d = f32[1024]{0:S(3)} copy-done(s)
  a = f32[1024]{0:S(3)} sine(d), backend_config={"estimated_cycles":"7"}
  ROOT r = f32[1024]{0} cosine(a)"""
    problem = import_hlo(hlo(lines, "HloModule m, is_scheduled=true"), TARGET)
    assert by_name(problem).keys() == {"p", "a", "r"}
    table = problem.cost_tables[problem.instructions[0].cost_table]
    assert (table.cycles[0b11], table.known) == (7, (False, False, False, True))
    assert problem.provenance["costs"]["estimated_cycles"] == 1


LESS = """
less {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = pred[] compare(a, b), direction=LT
}"""


def test_an_update_in_place_shares_a_value_only_if_nobody_reads_the_old_one():
    lines = """
  p = f32[64,1024]{1,0} parameter(0)
  u = f32[1,1024]{1,0} parameter(1)
  i = s32[] constant(3)
  old = f32[64,1024]{1,0} sort(p), dimensions={0}, to_apply=less
  new = f32[64,1024]{1,0} dynamic-update-slice(old, u, i, i)
  ROOT r = f32[64,1024]{1,0} add(new, %s)"""
    shared = import_hlo(hlo(lines % "new", others=LESS), TARGET)
    assert by_name(shared).keys() == {"p", "u", "old", "r"}
    assert by_name(shared)["old"].end == 3
    update = 4 * 1024
    assert costs(shared, "new")[0] == -(-2 * update // BYTES_PER_CYCLE)
    apart = import_hlo(hlo(lines % "old", others=LESS), TARGET)
    assert {"old", "new"} <= by_name(apart).keys()


@pytest.mark.parametrize("is_donated", [True, False])
def test_a_parameter_is_updated_in_place_only_if_it_is_donated(is_donated):
    header = "HloModule m" + ", input_output_alias={ {}: (0, {}, may-alias) }" * is_donated
    lines = """
  p = f32[64,1024]{1,0} parameter(0)
  u = f32[1,1024]{1,0} parameter(1)
  i = s32[] constant(3)
  ROOT new = f32[64,1024]{1,0} dynamic-update-slice(p, u, i, i)"""
    values = by_name(import_hlo(hlo(lines, header), TARGET))
    assert ("new" in values) != is_donated
    assert values["p"].is_live_out == is_donated
    assert values["p"].may_be_in_alternate != is_donated  # it must stay where it is


# -- calls, loops, fusions -------------------------------------------------------------------

SORTED = """
sorted {
  x = f32[1024]{0} parameter(0)
  ROOT y = f32[1024]{0} sort(x), dimensions={0}, to_apply=less
}"""


def test_every_call_gets_its_own_instructions():
    lines = """
  p = f32[1024]{0} parameter(0)
  a = f32[1024]{0} call(p), to_apply=sorted
  ROOT b = f32[1024]{0} call(a), to_apply=sorted"""
    problem = import_hlo(hlo(lines, others=LESS + SORTED), TARGET)
    assert [i.opcode for i in problem.instructions] == ["sort", "sort"]
    assert [(v.start, v.end) for v in problem.values if not v.is_parameter] == [(0, 2), (1, 2)]


def test_a_fusion_is_one_instruction_with_the_arithmetic_inside_it():
    others = """
f {
  a = bf16[2048,2048]{1,0} parameter(0)
  b = bf16[2048,2048]{1,0} parameter(1)
  d = bf16[2048,2048]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT t = bf16[2048,2048]{1,0} tanh(d)
}"""
    lines = """
  p = bf16[2048,2048]{1,0} parameter(0)
  q = bf16[2048,2048]{1,0} parameter(1)
  ROOT r = bf16[2048,2048]{1,0} fusion(p, q), kind=kOutput, calls=f"""
    problem = import_hlo(hlo(lines, others=others), TARGET)
    assert [i.opcode for i in problem.instructions] == ["fusion"]
    flops = 2 * 2048**3 + 2048**2
    assert costs(problem, "r")[-1] == -(-flops * 1.05e9 // 275e12)
    assert problem.provenance["fusions"] == "given"


LOOP = """
body {
  t = (s32[], f32[1024]{0}, f32[1024]{0}) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  x = f32[1024]{0} get-tuple-element(t), index=1
  w = f32[1024]{0} get-tuple-element(t), index=2
  one = s32[] constant(1)
  n = s32[] add(i, one)
  y = f32[1024]{0} multiply(x, w)
  ROOT o = (s32[], f32[1024]{0}, f32[1024]{0}) tuple(n, y, w)
}
condition {
  t = (s32[], f32[1024]{0}, f32[1024]{0}) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  limit = s32[] constant(12)
  ROOT c = pred[] compare(i, limit), direction=%s
}"""
LOOPED = """
  p = f32[1024]{0} parameter(0)
  q = f32[1024]{0} parameter(1)
  zero = s32[] constant(2)
  init = (s32[], f32[1024]{0}, f32[1024]{0}) tuple(zero, p, q)
  l = (s32[], f32[1024]{0}, f32[1024]{0}) while(init), condition=condition, body=body%s
  a = f32[1024]{0} get-tuple-element(l), index=1
  ROOT r = f32[1024]{0} tanh(a)"""


def test_a_loop_keeps_its_trips_and_its_carry_is_one_value():
    problem = import_hlo(hlo(LOOPED % "", others=LOOP % "LT"), TARGET)
    inner = {i.name: i for i in problem.instructions}["y"]
    assert (inner.trip_count, inner.loops, inner.in_entry) == (10, (0,), False)
    # p is not donated, so that the loop works on a copy; q only passes through it.
    assert by_name(problem).keys() == {"p", "q", "copy-for-l.1", "r"}
    assert {problem.values[p.value].name for p in inner.positions} == {"q", "copy-for-l.1"}
    assert problem.provenance["unknown_loops"] == 0


def test_noted_trips_count_and_unknown_ones_are_reported():
    config = ', backend_config={"known_trip_count":{"n":"7"}}'
    noted = import_hlo(hlo(LOOPED % config, others=LOOP % "NE"), TARGET)
    assert {i.name: i.trip_count for i in noted.instructions}["y"] == 7
    unknown = import_hlo(hlo(LOOPED % "", others=LOOP % "NE"), TARGET)
    assert {i.name: i.trip_count for i in unknown.instructions}["y"] == 1
    assert "1 loops of unknown trips" in describe(unknown)


# -- StableHLO and JAX -----------------------------------------------------------------------

STABLEHLO = """
module @m {
  func.func public @main(%a: tensor<512x512xf32>, %b: tensor<512x512xf32>) -> tensor<512x512xf32> {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
        : (tensor<512x512xf32>, tensor<512x512xf32>) -> tensor<512x512xf32>
    %1 = stablehlo.tanh %0 : tensor<512x512xf32>
    return %1 : tensor<512x512xf32>
  }
}
"""
SQUARE = jax.ShapeDtypeStruct((512, 512), jnp.float32)


def test_stablehlo_and_the_same_jax_function_give_the_same_problem():
    text = import_stablehlo(STABLEHLO, TARGET)
    assert [i.opcode for i in text.instructions] == ["fusion"]
    traced = import_jax(lambda a, b: jnp.tanh(a @ b), SQUARE, SQUARE, target=TARGET)

    def shape(problem):
        return (
            [(i.opcode, [(p.value, str(p)) for p in i.positions]) for i in problem.instructions],
            [dataclasses.replace(v, name="") for v in problem.values],
            problem.cost_tables,
        )

    assert shape(traced) == shape(text)
    assert traced.provenance["imported"] == "JAX function"


def test_a_scan_of_a_jax_function_is_a_loop_whose_calls_are_inlined():
    def fn(w, x):
        return jax.lax.scan(lambda c, _: (jax.nn.relu(c @ w), None), x, None, length=5)[0]

    problem = import_jax(fn, SQUARE, SQUARE, target=TARGET)
    (body,) = (i for i in problem.instructions if i.opcode == "fusion")  # the product and relu
    assert (body.trip_count, body.in_entry) == (5, False)
    assert "call" not in {i.opcode for i in problem.instructions}


def test_a_donated_cache_is_one_value():
    def fn(cache, new, at):
        return jax.lax.dynamic_update_slice(cache, new, (at, 0))

    args = (SQUARE, jax.ShapeDtypeStruct((1, 512), jnp.float32), jax.ShapeDtypeStruct((), "int32"))
    kept = import_jax(fn, *args, target=TARGET)
    donated = import_jax(jax.jit(fn, donate_argnums=0), *args, target=TARGET)
    assert len(kept.values) == len(donated.values) + 1


# -- against the compiler --------------------------------------------------------------------


@pytest.mark.requires_libtpu
def test_values_of_a_compiled_module_are_those_of_the_compilers_own_dump():
    """The loop, the cache in place, the live ranges: all as the compiler says."""

    def fn(weights, x, cache, at):
        x = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, weights)[0]
        cache = jax.lax.dynamic_update_slice(cache, x[:1], (at, 0))
        return jnp.sum(jax.nn.softmax(x @ cache.T), axis=0), cache

    weights = jax.ShapeDtypeStruct((4, 512, 512), jnp.float32)
    args = (weights, SQUARE, SQUARE, jax.ShapeDtypeStruct((), "int32"))
    with CompilerSession((jax.jit(fn, donate_argnums=2), args), TARGET) as session:
        compiled = session.compile(all_default_options(session))
    known = Extraction(compiled, "fn", CostStore()).problem
    found = import_hlo(compiled.hlo, TARGET)
    assert [i.name for i in found.instructions] == [i.name for i in known.instructions]
    assert [i.trip_count for i in found.instructions] == [i.trip_count for i in known.instructions]
    assert len(known.values) > 5

    def facts(problem):
        return {
            v.name: (v.size_bytes, v.start, v.end, v.is_parameter, v.is_live_out,
                     v.may_be_in_alternate, v.copied_at)
            for v in problem.values
        }  # fmt: skip

    assert facts(found) == facts(known)
    assert found.provenance["costs"]["estimated_cycles"] > 3


# -- mistakes --------------------------------------------------------------------------------

ADD = "p = f32[8]{0} parameter(0)\n ROOT r = f32[8]{0} add(p, p)"
BAD = {
    "empty": ("", "is empty"),
    "blank": ("  \n", "is empty"),
    "prose": ("hello world", "neither HLO .* nor StableHLO"),
    "garbage": (bytes(range(256)) * 40, "not a serialized HloProto"),
    "cut short": ("HloModule m\nENTRY e {\n p = f32[8]{0} parameter(0)\n", "not valid HLO text"),
    "circle": (hlo("a = f32[8]{0} add(b, b)\n ROOT b = f32[8]{0} add(a, a)"), "not valid HLO"),
    "crash": (hlo("p = f32[8]{0} parameter(5)\n ROOT r = f32[8]{0} add(p, p)"), "crashed on it"),
    "huge": (hlo(ADD.replace("[8]", "[4611686018427387904]")), "out of range"),
    "too many": (hlo(ADD.replace("[8]{0}", "[40000000,40000000]{1,0}")), "2\\*\\*50 elements"),
    "layout": (hlo(ADD.replace("{0}", "{3}")), r"the layout \{3\} of p"),
    "no work": (hlo("ROOT p = f32[8]{0} parameter(0)"), "no instruction that takes time"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_clear_line(what):
    content, message = BAD[what]
    with pytest.raises(WorkloadError, match=message) as caught:
        import_hlo(content, TARGET)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_a_proto_that_is_cut_short_is_refused(cut):
    proto = parsing.to_module_proto(CHAIN, parsing.HLO_TEXT)
    with pytest.raises(WorkloadError):
        import_hlo(proto[: int(len(proto) * cut)], TARGET)


def test_a_proto_with_wrong_bytes_is_a_problem_or_refused_with_one_line():
    proto = parsing.to_module_proto(hlo(LOOPED % "", others=LOOP % "LT"), parsing.HLO_TEXT)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(proto)
        for place in rng.integers(0, len(proto), 3):
            damaged[place] = rng.integers(0, 256)
        try:
            import_hlo(bytes(damaged), TARGET)
        except WorkloadError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused < 150


def test_a_jaxlib_without_the_parsers_is_named(monkeypatch):
    monkeypatch.setitem(xla_bindings._HOMES, "hlo_module_from_text", ("jaxlib.moved", "jaxlib"))
    with pytest.raises(WorkloadError, match="this jaxlib has no hlo_module_from_text"):
        xla_bindings.hlo_text_to_proto(CHAIN)


def test_wrong_kinds_and_targets_are_refused():
    with pytest.raises(WorkloadError, match="use import_stablehlo"):
        import_hlo(STABLEHLO, TARGET)
    with pytest.raises(WorkloadError, match="use import_hlo"):
        import_stablehlo(CHAIN, TARGET)
    with pytest.raises(WorkloadError, match="unknown target 'v9'"):
        import_hlo(CHAIN, "v9")
    with pytest.raises(WorkloadError, match="dynamic|unknown or out of range"):
        import_stablehlo(STABLEHLO.replace("512x512", "?x512"), TARGET)


def test_files_are_told_apart_by_content(tmp_path):
    (tmp_path / "a.txt").write_text(CHAIN)
    (tmp_path / "b.txt").write_text(STABLEHLO)
    assert import_file(str(tmp_path / "a.txt"), TARGET).provenance["imported"] == "HLO text"
    assert import_file(str(tmp_path / "b.txt"), TARGET).provenance["imported"] == "StableHLO"
    with pytest.raises(WorkloadError, match="cannot read .*: No such file"):
        import_file(str(tmp_path / "c.txt"), TARGET)
    with pytest.raises(WorkloadError, match="is a directory|Is a directory"):
        import_file(str(tmp_path), TARGET)
