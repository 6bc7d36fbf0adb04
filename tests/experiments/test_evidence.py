"""`make evidence`: what it runs, how it goes on where it was stopped, what its page says."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest
from click.testing import CliRunner

from tests.experiments.evidence import journal, page, pictures, runs
from tests.experiments.evidence.__main__ import main
from tests.helpers.training_for_tests import SMALL

PAIR = "strassen_wide-tpu7x"


@pytest.fixture
def baselines(tmp_path):
    """No results of baselines."""
    return tmp_path / "baselines"


def _row(experiment: str, variant: str, seed: int, pair: str = PAIR, **found) -> dict:
    known = {"xla_default": {pair: 100.0}, "bound": {pair: 50.0}, "jax": "1.2", "seconds": 3.0}
    run = {"experiment": experiment, "variant": variant, "pair": pair, "seed": seed}
    return run | known | found


def test_every_run_can_be_begun_and_is_another_one():
    each = [run for experiment in runs.EXPERIMENTS.values() for run in experiment()]
    assert len({run.key for run in each}) == len(each)
    seeds = collections.defaultdict(set)
    for run in each:
        assert run.experiment == "optimum" or runs._pairs(*run.pair.split("+"))
        seeds[run.experiment, run.variant].add(run.seed)
    drawn = {len(of) for (_, variant), of in seeds.items() if variant != "zero-shot"}
    assert min(drawn) >= 3


def test_planning_is_of_test_families_and_at_least_twenty_pairs():
    planned = {run.pair for run in runs.planning()}
    assert len(planned) >= 20
    assert all(pair.split == "test" for pair in runs._pairs(*planned))


def test_variants_differ_from_what_they_vary_in_one_thing():
    variants = runs._variants()
    assert variants["as it is"] == runs.SCRATCH
    assert len({repr(config) for config in variants.values()}) == len(variants)
    assert variants["8 simulations"].agent.search.num_simulations == 8
    assert variants["true dynamics, no reanalyse"].agent.search.dynamics == "env"


@pytest.mark.slow
def test_a_curve_of_training_is_a_line_of_the_journal(monkeypatch):
    monkeypatch.setattr(runs, "SCRATCH", SMALL)
    monkeypatch.setattr(runs, "EVALUATION_SIMULATIONS", SMALL.agent.search.num_simulations)
    monkeypatch.setattr(runs, "CURVE_ITERATIONS", 1)
    monkeypatch.setattr(runs, "CURVE_EVERY", 1)
    run = next(run for run in runs.curves() if run.pair == PAIR)
    row = json.loads(json.dumps(runs.record(run)))
    assert journal.key(row) == run.key
    [first, second] = row["curve"]
    assert (first[0], second[0]) == (0, 1) and second[1] > first[1] == 0
    default = row["xla_default"][PAIR]
    assert row["bound"][PAIR] <= row["best_in_training"][PAIR] <= default * 10
    assert all(latency >= row["bound"][PAIR] for _, _, found in (first, second)
               for latency in found.values())  # fmt: skip


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    done = []

    def experiment():
        for seed in range(3):

            def measure(seed=seed):
                done.append(seed)
                return {"cycles": np.float32(50 + seed)}

            yield runs.Run("lead", "anywhere", PAIR, seed, measure)

    monkeypatch.setattr(runs, "EXPERIMENTS", {"lead": experiment})
    monkeypatch.setattr(
        "tests.experiments.evidence.page.markdown", lambda rows, _: f"{len(rows)}\n"
    )
    monkeypatch.setattr(
        "tests.experiments.evidence.pictures.pictures", lambda *_: {"a.svg": b"<svg/>"}
    )
    out = tmp_path / "evidence"
    path, text = out / "evidence.jsonl", tmp_path / "evidence.md"

    def command(*args: str) -> str:
        found = CliRunner().invoke(main, [*args, "--out", str(out)])
        assert found.exit_code == 0, found.output
        return found.output

    assert "[1/1] lead, anywhere" in command("--most", "1")
    assert (done, text.read_text()) == ([0], "1\n")
    path.write_text(path.read_text() + '{"experiment": "le')  # killed while it wrote
    assert command("lead").count("lead, anywhere") == 2
    assert (done, text.read_text()) == ([0, 1, 2], "3\n")
    assert len(journal.read(path)) == 3
    assert command() == "" and done == [0, 1, 2]
    assert (out / "a.svg").read_bytes() == b"<svg/>"


def test_an_unknown_experiment_is_one_line():
    found = CliRunner().invoke(main, ["curvs"])
    assert found.exit_code == 2 and "no experiment 'curvs'" in found.output


def test_curves_are_counted_at_the_best_known(baselines):
    rows = [
        _row("curves", "from scratch", seed, best_in_training={PAIR: 80.0},
             curve=[[0, 0, {PAIR: 120.0}], [8, 64, {PAIR: last}]])
        for seed, last in enumerate((80.0, 80.05, 90.0))
    ]  # fmt: skip
    text = page.markdown(rows, baselines)
    assert f"| {PAIR} | 3 | 64 | - | - | 0.8000 | 1.2000 (1.2000 to 1.2000) |" in text
    assert "0.8005 (0.8000 to 0.9000) | 2 of 3 |" in text
    assert set(pictures.pictures(rows, baselines)) == {"curves.svg"}


def test_how_many_problems_are_at_their_optimum_is_counted(baselines):
    found = {"untrained": [0.5, 0.0], "trained": [1.0, 0.99], "loss": [2, 1], "saved": [3, 4]}
    text = page.markdown([_row("optimum", "from scratch", 2, pair="2 small", **found)], baselines)
    assert "| 2 | 25.0% | 99.5% | 1 of 2 | 2.000 to 1.000 | 3.000 to 4.000 | 3 |" in text


def test_seeds_that_only_some_pairs_have_are_told(baselines):
    rows = [
        _row("lead", "anywhere", seed, pair=pair, xla_default={pair: 10.0}, bound={pair: 5.0},
             cycles=9.0, curve=[[0, 10.0], [4, 9.0]])
        for seed, pair in ((0, "a"), (0, "b"), (1, "b"))
    ]  # fmt: skip
    text = page.markdown(rows, baselines)
    assert "2 contended pairs of test families, seeds 0, 1 (1 of 2 pairs)." in text
    assert "seeds 0." in page.markdown(rows[:2], baselines)


def test_ablations_are_shares_of_what_can_be_won(baselines):
    rows = [
        _row("ablations", variant, 0, best_in_training={PAIR: 80.0},
             curve=[[0, 0, {PAIR: 200.0}], [8, 1, {PAIR: 100.0}], [16, 2, {PAIR: last}]])
        for variant, last in (("as it is", 80.0), ("8 simulations", 90.0), ("no reanalyse", 95.0))
    ]  # fmt: skip
    text = page.markdown(rows, baselines)
    assert "| as it is | 1 | 0.0000 | 1.0000 | 0.5000 | 3 |" in text
    assert "| 8 simulations | 1 | 0.0000 | 0.5000 | 0.2500 | 3 |" in text
    assert set(pictures.pictures(rows, baselines)) == {"ablations.svg"}


def test_a_network_of_its_own_stands_beside_the_one_for_all(baselines):
    alone = _row("curves", "from scratch", 0, best_in_training={PAIR: 70.0},
                 curve=[[0, 0, {PAIR: 120.0}], [8, 64, {PAIR: 75.0}]])  # fmt: skip
    shared = [
        _row("ablations", "as it is", seed, pair=f"{PAIR}+b", xla_default={PAIR: 100.0, "b": 10.0},
             best_in_training={PAIR: 80.0, "b": 9.0},
             curve=[[0, 0, {PAIR: 120.0, "b": 10.0}], [8, 1, {PAIR: last, "b": 9.0}]])
        for seed, last in enumerate((85.0, 95.0))
    ]  # fmt: skip
    text = page.markdown([alone, *shared], baselines)
    own = "0.7500 | 0.9000 (0.8500 to 0.9500) | 0.7000 | 0.8000 (0.8000 to 0.8000) |"
    assert f"| {PAIR} | {own}" in text
    assert "one for all" not in page.markdown([alone], baselines)


def test_led_and_anywhere_are_compared_pair_by_pair(baselines):
    rows = [
        _row("lead", variant, 0, pair, cycles=cycles, curve=[[0, 100.0], [60, cycles]])
        for pair in ("a", "b")
        for variant, cycles in (("led by the policy", 80.0 if pair == "a" else 90.0),
                                ("anywhere", 90.0))
    ]  # fmt: skip
    text = page.markdown(rows, baselines)
    assert "Led against anywhere: 1 / 1 / 0." in text
    assert "| anywhere | 0.9000 | 20.0% | 20.0% | - | - |" in text
