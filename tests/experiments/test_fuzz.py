"""Every reader on valid files, on broken ones, and on the files that once got the better of it."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.experiments.fuzz.mutate import break_file
from tests.experiments.fuzz.readers import READERS, corpus

# More of them: MALLOCGAME_FUZZ_EXAMPLES=5000; guided by coverage: make fuzz.
EXAMPLES = int(os.environ.get("MALLOCGAME_FUZZ_EXAMPLES", "12"))
FAST = [name for name, reader in READERS.items() if not reader.is_slow]
SLOW = [name for name, reader in READERS.items() if reader.is_slow]
KEPT = [path for name in READERS for path in sorted(corpus(name).glob("*"))]


@pytest.mark.parametrize("name", FAST)
def test_valid_files_are_accepted(name):
    seeds = READERS[name].seeds()
    assert seeds
    for seed in seeds:
        assert READERS[name].run(seed)


def _try(name: str, data: st.DataObject) -> None:
    seeds = READERS[name].seeds()
    seed = data.draw(st.sampled_from(seeds))
    READERS[name].run(break_file(seed, lambda n: data.draw(st.integers(0, n - 1))))


@pytest.mark.parametrize("name", FAST)
@settings(deadline=None, max_examples=EXAMPLES, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(data=st.data())
def test_a_broken_file_is_refused_in_one_line_or_can_be_used(name, data):
    _try(name, data)


@pytest.mark.parametrize("name", SLOW)
@settings(deadline=None, max_examples=max(1, EXAMPLES // 4), derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(data=st.data())
def test_so_is_one_whose_reader_starts_a_process_or_reads_many_files(name, data):
    _try(name, data)


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_what_once_crashed_a_reader_does_no_more(path):
    READERS[path.parent.name].run(path.read_bytes())
