"""Costs per placement: what compiles have shown is exact and kept; the rest is a stated guess."""

import logging
import multiprocessing
import sqlite3

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malloc_game.problem.definition import MAX_PRICED_POSITIONS
from workloads.compiler.session import CompilerSession
from workloads.costs.model import Prediction, Traffic, every_mask, mask_bits
from workloads.costs.store import CostStore, roofline
from workloads.extraction.extraction import Extraction
from workloads.extraction.placed import placed_module
from workloads.overrides.text import EXACT_OPTIONS, KEEP_EVERYTHING

KEY = ("fingerprint", ((False, 0, ()), (False, 1, ()), (True, 0, ())))
OTHER = ("another", ((True, 0, ()),))


def traffic(*cycles, outputs=1, other=0.0):
    """Positions that take so many cycles each at full bandwidth, the last ones outputs."""
    inputs = len(cycles) - outputs
    return Traffic(tuple(map(float, cycles)), tuple(i >= inputs for i in range(len(cycles))), other)


# Cycles by mask that the compiler gave three kinds of instructions of a transformer, a training
# step and a grouped-query decode step on v4; bit 0 is the first position.
ADDITIVE = traffic(3586, 3586, 1793, 7, 2), {
    0b00000: 54033, 0b00001: 45937, 0b00010: 54033, 0b00011: 45937, 0b00100: 49224, 0b01000: 54033,
    0b01101: 40808, 0b00111: 40808, 0b10100: 49224, 0b11111: 40808,
}  # fmt: skip
SATURATING = traffic(7173, 7173, 7173, 7173, 7173, 4, outputs=2), {
    0b000000: 283752, 0b000001: 241166, 0b000101: 195554, 0b001100: 187185, 0b001010: 200594,
    0b001011: 188248, 0b010011: 199544, 0b011000: 234262, 0b011001: 225276, 0b011011: 188248,
}  # fmt: skip
SLOWER = traffic(8069, 8069), {0b00: 86580, 0b01: 86580, 0b10: 86580, 0b11: 102624}
REAL = {"additive": ADDITIVE, "saturating": SATURATING, "slower in alternate": SLOWER}


@pytest.mark.parametrize("name", REAL)
def test_what_the_compiler_said_is_reproduced_without_doubt(name):
    moved, observed = REAL[name]
    prediction = Prediction(moved, observed)
    bits = mask_bits(list(observed), len(moved.positions))
    assert prediction.mean(bits) == pytest.approx(list(observed.values()), rel=2e-3)
    assert (prediction.deviation(bits) < 5e-3 * prediction.base).all()
    store = CostStore()
    for mask, cycles in observed.items():
        store.record(KEY, mask, cycles)
    table, deviation = store.table(KEY, moved)
    for mask in range(len(table.cycles)):
        assert table.known[mask] == (mask in observed) == (deviation[mask] == 0.0)
        assert table.cycles[mask] == observed.get(mask, table.cycles[mask])


def left_out(moved, observed):
    """(predicted, deviation, true cycles) of each mask but 0, predicted from the others."""
    rows = []
    for mask in observed:
        if mask:
            others = {m: c for m, c in observed.items() if m != mask}
            prediction, bits = Prediction(moved, others), mask_bits([mask], len(moved.positions))
            rows.append([prediction.mean(bits)[0], prediction.deviation(bits)[0], observed[mask]])
    return np.array(rows).T


def test_masks_left_out_are_predicted_within_the_stated_doubt():
    for moved, observed in (ADDITIVE, SATURATING):
        predicted, deviation, true = left_out(moved, observed)
        assert np.median(abs(predicted / true - 1)) < 0.06
        assert (abs(predicted - true) < 2.5 * deviation).mean() >= 0.85
        assert (deviation < 0.5 * true).all()  # and the doubt is not merely large


def test_doubt_grows_with_distance_and_shrinks_with_what_is_learned():
    moved = traffic(1000, 1000, 10)
    first = Prediction(moved, {0: 9000})
    small, one, two = first.deviation(mask_bits([0b100, 0b001, 0b011], 3))
    assert 0 < small < one < two
    second = Prediction(moved, {0: 9000, 0b001: 8900})
    assert second.deviation(mask_bits([0b011], 3))[0] < two
    # An instruction that surprises is doubted more than one that does as expected.
    surprising = Prediction(moved, {0: 9000, 0b001: 17000})
    assert surprising.deviation(mask_bits([0b010], 3)) > second.deviation(mask_bits([0b010], 3))


def test_what_is_done_in_another_way_says_nothing_of_other_placements():
    """A copy of 8 MiB on tpu7x, as in lstm, within alternate memory."""
    moved, observed = traffic(8000, 8000), {0: 27248, 0b11: 82176}
    mixed = mask_bits([0b01, 0b10], 2)
    assert Prediction(moved, observed).mean(mixed) == pytest.approx(
        Prediction(moved, {0: 27248}).mean(mixed)
    )
    store = CostStore()
    for mask, cycles in observed.items():
        store.record(("copy",), mask, cycles)
    table, deviation = store.table(("copy",), moved)
    assert (table.cycles[0b11], deviation[0b11]) == (82176, 0), "but of itself"
    # What is dear in the ordinary way, as on v4, is a warning.
    dear = Prediction(moved, {0: 27248, 0b11: 40000}).mean(mixed)
    assert (dear > Prediction(moved, {0: 27248}).mean(mixed)).all()


def test_covariance_and_deviation_agree():
    prediction = Prediction(*SATURATING)
    bits = every_mask(6)
    covariance = prediction.covariance(bits)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(prediction.deviation(bits), rel=1e-3)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_alternate_memory_may_cost_more():
    prediction = Prediction(traffic(5000, 5000, 5000), {0: 80000, 0b011: 120000})
    assert prediction.mean(mask_bits([0b111], 3))[0] > 90000


def test_an_instruction_never_seen_in_default_memory_has_a_level_in_doubt():
    prediction = Prediction(traffic(100, 100), {0b11: 500})
    assert prediction.mean(mask_bits([0b11], 2))[0] == pytest.approx(500, rel=0.01)
    assert prediction.deviation(mask_bits([0], 2))[0] > 20


def test_an_instruction_without_positions_has_one_entry():
    store = CostStore()
    store.record(KEY, 0, 42)
    table, deviation = store.table(KEY, traffic(outputs=0))
    assert (table.cycles, table.known, deviation.tolist()) == ((42,), (True,), [0.0])


def test_positions_past_the_priced_ones_count_as_in_default_memory():
    n = MAX_PRICED_POSITIONS + 1
    store = CostStore()
    last = 1 << MAX_PRICED_POSITIONS
    store.record(KEY, 0, 1000)
    store.record(KEY, last, 700)  # differs in the position that is not priced
    store.record(KEY, last | 1, 600)  # the only one with its priced bits
    table, _ = store.table(KEY, traffic(*[50] * n))
    assert (table.cycles[0], table.known[0]) == (1000, True)
    assert (table.cycles[1], table.known[1]) == (600, True)
    assert table.known.count(True) == 2


def test_no_estimate_means_default_memory_traffic_at_full_bandwidth():
    table = roofline(traffic(100, 30, other=7.5))
    assert table.cycles == (138, 38, 108, 8)
    assert not any(table.known)


# -- the file --------------------------------------------------------------------------------


def facts(store):
    store.load([KEY, OTHER])
    return store.observed


def test_costs_are_kept_for_the_next_program(tmp_path):
    store = CostStore.on_disk("v4", "1.0", tmp_path)
    assert store.record(KEY, 0b101, 700)
    assert store.record(OTHER, 1 << 80, 9)  # masks may be wider than a machine word
    store.save()
    assert store.record(KEY, 0b101, 701)  # newer
    assert not store.record(KEY, 0b101, 701)
    store.save()
    again = CostStore.on_disk("v4", "1.0", tmp_path)
    assert facts(again) == {KEY: {0b101: 701}, OTHER: {1 << 80: 9}}


def test_costs_of_another_target_or_compiler_are_not_taken(tmp_path):
    store = CostStore.on_disk("v4", "1.0", tmp_path)
    store.record(KEY, 0, 700)
    store.save()
    assert facts(CostStore.on_disk("v5e", "1.0", tmp_path)) == {}
    assert facts(CostStore.on_disk("v4", "1.1", tmp_path)) == {}


def test_what_was_recorded_wins_over_the_file(tmp_path):
    for cycles in (1, 2):
        store = CostStore.on_disk("v4", "1.0", tmp_path)
        store.record(KEY, 0, cycles)
        assert facts(store)[KEY] == {0: cycles}
        store.save()


def test_a_store_in_memory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOCGAME_CACHE", str(tmp_path))
    store = CostStore()
    store.record(KEY, 0, 1)
    store.save()
    store.load([OTHER])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["noise", "header", "value"])
def test_a_damaged_file_is_replaced(tmp_path, damage):
    store = CostStore.on_disk("v4", "1.0", tmp_path)
    for mask in range(2000):
        store.record(KEY, mask, 700)
    store.save()
    (path,) = tmp_path.iterdir()
    if damage == "value":
        with sqlite3.connect(path) as database:
            database.execute("UPDATE costs SET cycles = 'many'")
        database.close()
    else:
        start = 0 if damage == "header" else 4096
        data = bytearray(path.read_bytes())
        data[start : start + 8192] = b"\xa5" * 8192
        path.write_bytes(data)
    assert facts(CostStore.on_disk("v4", "1.0", tmp_path)).get(KEY, {}) == {}
    store = CostStore.on_disk("v4", "1.0", tmp_path)
    store.record(KEY, 1, 5)
    store.save()
    assert facts(CostStore.on_disk("v4", "1.0", tmp_path)) == {KEY: {1: 5}}


def test_a_directory_that_cannot_be_used_is_one_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            store = CostStore.on_disk("v4", "1.0", blocked)
            store.record(KEY, 0, 1)
            store.save()
            assert store.observed == {KEY: {0: 1}}
    assert len(caplog.records) == 1


def _write_many(directory, number):
    for mask in range(30):
        store = CostStore.on_disk("v4", "1.0", directory)
        store.record(KEY, mask * 2 + number, number)
        store.save()


def test_processes_can_write_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(tmp_path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    expected = {mask: mask % 2 for mask in range(60)}
    assert facts(CostStore.on_disk("v4", "1.0", tmp_path)) == {KEY: expected}


# -- with the genuine compiler ---------------------------------------------------------------


def layer(x):
    return jnp.cumsum(jnp.tanh(x @ x), axis=0)


@pytest.fixture(scope="module")
def compiles():
    """By size of `layer`: the all-default compile, and XLA's own of the larger one; on v5e."""
    made = {}
    for size in (512, 256):
        shape = jax.ShapeDtypeStruct((size, size), jnp.bfloat16)
        with CompilerSession((layer, (shape,)), "v5e") as session:
            kept = session.compile(EXACT_OPTIONS, overrides=KEEP_EVERYTHING)
            made[size] = kept, session.compile({}) if size == 512 else None
    return made


@pytest.mark.requires_libtpu
def test_extractions_of_all_programs_share_what_compiles_have_shown(
    compiles, tmp_path, monkeypatch
):
    monkeypatch.setenv("MALLOCGAME_CACHE", str(tmp_path))
    kept, default = compiles[512]
    cold = Extraction(kept, "layer", CostStore())
    first = Extraction(kept, "layer")
    assert first.num_facts == cold.num_facts
    assert first.learn(placed_module(default)) > 0
    second = Extraction(kept, "layer")
    assert second.num_facts == first.num_facts > cold.num_facts
    assert second.refresh().cost_tables == first.refresh().cost_tables
    known = [
        table.known[m] == (doubt == 0)
        for table, deviations in zip(second.problem.cost_tables, second.uncertainty, strict=True)
        for m, doubt in enumerate(deviations)
        if any(table.known)
    ]
    assert known and all(known)


@pytest.mark.requires_libtpu
def test_another_instruction_of_the_same_name_teaches_nothing(compiles):
    extraction = Extraction(compiles[512][0], "layer", CostStore())
    other = placed_module(compiles[256][0])
    mine = {i.name for i, _ in extraction.module.flattened() if i.estimated_cycles}
    assert mine & {i.name for i, _ in other.flattened() if i.estimated_cycles}
    before = {key: dict(masks) for key, masks in extraction.store.observed.items()}
    assert extraction.learn(other) == 0
    assert extraction.store.observed == before
