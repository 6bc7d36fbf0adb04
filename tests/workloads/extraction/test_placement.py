"""Finding a memory size that stops the compiler after placement and changes nothing else."""

from __future__ import annotations

import gc
import weakref

import pytest

from tests.helpers.contended import Contended
from tests.helpers.mapped_by_name import inside
from workloads.compiler.session import OVERRIDES_OPTION
from workloads.errors import CompileError
from workloads.extraction.all_default import all_default_options
from workloads.extraction.dry_run import DryRun, dry_run_of
from workloads.hlo.module import Module
from workloads.overrides.text import EXACT_OPTIONS, overrides

requires_libtpu = pytest.mark.requires_libtpu


class Sizes:
    """A session whose compiler is stopped as `place(size)` says; a compile gives `compiled`."""

    def __init__(self, compiled, place):
        self.compiled, self._place = compiled, place
        self.asked, self.num_compiles = [], 0

    def remembered(self, label):
        return None

    def compile(self, options):
        self.num_compiles += 1
        return self.compiled

    def place(self, options):
        self.asked.append(options)
        return self._place(self.sizes[-1])

    @property
    def sizes(self):
        return [int(options["xla_tpu_max_hbm_size_mib"]) for options in self.asked]


@pytest.fixture(scope="module")
def programs():
    """The all-default program, and one that differs in the memory of a single value."""
    real = Contended()
    value = next(v for v in real.problem.values if not (v.is_parameter or v.is_live_out))
    pinned = inside(value.name, problem=real.problem)
    text = overrides(real.problem, pinned)
    other = real.dry_run.place({**EXACT_OPTIONS, OVERRIDES_OPTION: text})
    names = [
        [i.name for i, _ in Module(each.hlo).flattened()]
        for each in (real.dry_run.place(all_default_options(real.session)), other)
    ]
    real.session.close()
    assert names[0] == names[1]
    return real.found.all_default, other


@requires_libtpu
def test_a_memory_size_that_changes_the_program_is_not_used(programs):
    same, other = programs
    needed = 1000 << 20
    small = Sizes(same, lambda size: (same, needed))
    assert DryRun(small).is_fast and small.sizes == [1]
    half = Sizes(same, lambda size: (same if size > 1 else other, needed))
    dry_run = DryRun(half)
    assert dry_run.is_fast and half.sizes == [1, 500]
    dry_run.place({})
    assert half.sizes[-1] == 500
    assert any("rematerialization" in option for option in half.asked[-1])


@requires_libtpu
def test_no_further_size_is_tried_when_the_time_is_up(programs):
    same, other = programs
    session = Sizes(same, lambda size: (same if size > 1 else other, 1000 << 20))
    assert not DryRun(session, seconds=0.0).is_fast
    assert session.sizes == [1]


@requires_libtpu
@pytest.mark.parametrize("what", ["changes", "fits", "fails"])
def test_where_no_size_will_do_every_check_is_a_full_compile(programs, what):
    same, other = programs

    def place(size):
        if what == "fails":
            raise CompileError("no")
        return (other, 100 << 20) if what == "changes" else (same, 0)

    session = Sizes(same, place)
    dry_run = DryRun(session)
    tried, compiles = session.sizes, session.num_compiles
    assert not dry_run.is_fast and tried[0] == 1 and max(tried) < 100
    assert (len(tried) > 1) == (what == "changes") and tried == sorted(set(tried))
    assert dry_run.place({}) is same
    assert (session.sizes, session.num_compiles) == (tried, compiles + 1)


@requires_libtpu
def test_a_session_has_one_dry_run_and_is_not_kept_alive_by_it(programs):
    same, _ = programs
    session = Sizes(same, lambda size: (same, 1000 << 20))
    assert dry_run_of(session) is dry_run_of(session) and dry_run_of(session).is_fast
    assert session.sizes == [1]
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
