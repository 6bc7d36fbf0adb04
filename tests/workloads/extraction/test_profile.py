"""The profile of a mapping: the latency's own parts, and where copies run."""

from __future__ import annotations

import numpy as np
import pytest

import malloc_game as mg
from malloc_game.problem.latencies import profile
from tests.helpers.run_for_tests import layers
from tests.helpers.toy import KIB, toy
from workloads.programs.suite_problems import DATA

# 1 KiB a cycle. The copy of w has 8 KiB; instructions 0 and 1 leave 3 KiB each.
DRAWN = """
    cycles        5   5   5   5
    w  8  param   .   .   u2  .
    x  2  temp    D   u   .   .
    y  2  out:3   .   .   .   D1
"""


def test_a_copy_that_is_late_is_waited_for_where_it_is_needed():
    problem = toy(DRAWN)
    mapping = mg.Assignment((0, 0, 1, 0), (mg.Chunk(0, 0, 8 * KIB, 0, 3),),
                            (mg.Copy(0, 0, 2, 8 * KIB),))  # fmt: skip
    found = profile(problem, mapping)
    assert found.cycles.tolist() == [5, 5, 3, 5]
    assert found.wait_cycles.tolist() == [0, 0, 2, 0, 0]
    assert found.start.tolist() == [0, 5, 12, 15, 20]
    assert (found.copied_bytes / KIB).tolist() == [3, 3, 2, 0, 0]
    assert (found.default_bytes / KIB).tolist() == [2, 2, 0, 2]


def test_executions_of_a_loop_are_added_up_and_results_written_back():
    problem = toy("""
        cycles        5   5
        trips         1   3*
        x  2  temp    D   u
        y  2  out:3   .   D1
    """)
    found = profile(problem, mg.Assignment((0, 0b10)))
    assert found.cycles.tolist() == [5, 12] and found.write_back_cycles == 3
    assert (found.default_bytes / KIB).tolist() == [2, 6]
    assert found.total == 20 == mg.latency(problem, mg.Assignment((0, 0b10))).cycles


def _agrees(problem: mg.Problem, mapping: mg.Assignment) -> None:
    found, latency = profile(problem, mapping), mg.latency(problem, mapping)
    assert found.total == pytest.approx(latency.cycles, rel=1e-12)
    assert found.cycles.sum() == pytest.approx(latency.instruction_cycles, rel=1e-12)
    assert found.wait_cycles.sum() == pytest.approx(latency.wait_cycles, rel=1e-9, abs=1e-6)
    assert found.write_back_cycles == latency.write_back_cycles
    assert np.all(np.diff(found.start) >= 0)
    assert found.start[-1] == pytest.approx(found.cycles.sum() + found.wait_cycles.sum())
    copied = sum(copy.size for copy in mapping.copies)
    assert found.copied_bytes.sum() == pytest.approx(copied, rel=1e-9), "every copy is awaited"


def test_the_parts_sum_to_the_latency_of_many_copies():
    _agrees(*layers(60))


@pytest.mark.parametrize("pair", ["decode_gqa-tpu7x", "scan_transformer-v5e", "train_mlp-v4"])
def test_the_parts_sum_to_the_latency_of_the_compilers_own_mappings(pair):
    path = DATA / f"{pair}.json.gz"
    problem = mg.load_problem(path)
    _agrees(problem, mg.load_reference(path, problem))
