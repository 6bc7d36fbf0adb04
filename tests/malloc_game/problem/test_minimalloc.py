"""MiniMalloc CSV files as packing tests, the checker of offsets, and the game's first fit."""

import itertools

import numpy as np
import pytest

import malloc_game as mg

# Overlaps: a-b, b-c, b-d, c-d; what ends at a time is gone when another begins at it.
SMALL = "id,lower,upper,size\na,0,3,4\nb,1,9,4\nc,3,9,2\nd,5,6,2\n"


def load(tmp_path, text=SMALL, capacity=8):
    path = tmp_path / "buffers.csv"
    path.write_text(text)
    return mg.load_minimalloc_csv(path, capacity)


def test_a_file_becomes_an_instance_whatever_the_order_of_its_columns(tmp_path):
    found = load(tmp_path)
    assert found == mg.PackingInstance(
        "buffers", 8, tuple("abcd"), (0, 1, 3, 5), (3, 9, 9, 6), (4, 4, 2, 2)
    )
    assert load(tmp_path, "size, id,upper,lower\n4,a,3,0\n") == mg.PackingInstance(
        "buffers", 8, ("a",), (0,), (3,), (4,)
    )


def test_the_lower_bound_is_the_most_alive_at_one_time(tmp_path):
    assert load(tmp_path).lower_bound_bytes() == 8
    assert load(tmp_path, "id,lower,upper,size\na,0,3,4\nb,3,4,4\n").lower_bound_bytes() == 4


def test_first_fit_places_by_time_at_the_lowest_free_offset(tmp_path):
    instance = load(tmp_path)
    offsets = mg.first_fit(instance)
    assert offsets == (0, 4, 0, 2)
    assert mg.check_offsets(instance, offsets) == []


def test_what_does_not_fit_has_no_place_and_is_reported(tmp_path):
    instance = load(tmp_path, capacity=6)
    offsets = mg.first_fit(instance)
    assert offsets[1] is None
    assert mg.check_offsets(instance, offsets) == ["b has no place"]


@pytest.mark.parametrize(
    "offsets, found",
    [
        ((0, 4, 0), "3 offsets for 4"),
        ((2, 4, 0, 2), "a and b overlap"),
        ((0, 4, 1, 2), "c and d overlap"),
        ((0, 5, 0, 2), "leaves the memory"),
        ((-1, 4, 0, 2), "leaves the memory"),
    ],
)
def test_each_kind_of_damage_is_told(tmp_path, offsets, found):
    (violation,) = mg.check_offsets(load(tmp_path), offsets)
    assert found in violation


def random_text(seed, count=40):
    rng = np.random.default_rng(seed)
    lower = rng.integers(0, 30, count)
    rows = zip(lower, lower + rng.integers(1, 12, count), rng.integers(1, 9, count), strict=True)
    return "id,lower,upper,size\n" + "".join(
        f"b{i},{low},{up},{64 * size}\n" for i, (low, up, size) in enumerate(rows)
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_problem_overlaps_as_the_instance_does_and_its_latency_counts_the_left_out(
    tmp_path, seed
):
    instance = load(tmp_path, random_text(seed), capacity=2048)
    problem = instance.to_problem()
    values = {v.name: v for v in problem.values}
    for i, j in itertools.combinations(range(40), 2):
        a, b = values[instance.ids[i]], values[instance.ids[j]]
        assert (a.start < b.end and b.start < a.end) == (
            instance.lower[i] < instance.upper[j] and instance.lower[j] < instance.upper[i]
        )
    offsets = mg.first_fit(instance)
    left_out = [name for name, at in zip(instance.ids, offsets, strict=True) if at is None]
    assert 0 < len(left_out) < 40
    assert mg.check_offsets(instance, offsets) == [f"{name} has no place" for name in left_out]
    everything = mg.all_default(problem)
    assert mg.latency(problem, everything).cycles == 40


BAD = {
    "empty": ("", "first line must name"),
    "other columns": ("id,start,end,size\na,0,1,1\n", "first line must name"),
    "no buffers": ("id,lower,upper,size\n\n", "no buffers"),
    "duplicate": (SMALL + "\na,0,1,1\n", "line 7: id 'a' is empty or there already"),
    "negative": ("id,lower,upper,size\na,-1,1,1\n", "line 2: lower is '-1'"),
    "inverted": ("id,lower,upper,size\na,3,1,1\n", r"lifetime \[3, 1\) is empty"),
    "no life": ("id,lower,upper,size\na,3,3,1\n", r"lifetime \[3, 3\) is empty"),
    "no size": ("id,lower,upper,size\na,0,1,0\n", "size is 0"),
    "huge": ("id,lower,upper,size\na,0,1,9999999999999999\n", "size is '9999999999999999'"),
    "a word": ("id,lower,upper,size\na,0,soon,1\n", "upper is 'soon'"),
    "a field short": ("id,lower,upper,size\na,0,1\n", "3 fields, need 4"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_refused_with_line_and_field(tmp_path, what):
    text, message = BAD[what]
    with pytest.raises(mg.ProblemError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_binary_data_missing_files_and_capacities_below_one_are_refused(tmp_path):
    (tmp_path / "b.csv").write_bytes(bytes(range(256)))
    with pytest.raises(mg.ProblemError, match="binary data"):
        mg.load_minimalloc_csv(tmp_path / "b.csv", 8)
    with pytest.raises(mg.ProblemError, match="cannot read .*No such file"):
        mg.load_minimalloc_csv(tmp_path / "c.csv", 8)
    with pytest.raises(mg.ProblemError, match="capacity is 0"):
        load(tmp_path, capacity=0)


def test_a_buffer_larger_than_the_memory_is_left_out(tmp_path):
    instance = load(tmp_path, "id,lower,upper,size\na,0,1,16\nb,0,1,8\n", capacity=8)
    assert mg.first_fit(instance) == (None, 0)
