"""The runtime simulator against the numbers of XLA's own tests (memory_space_assignment).

Source of the expected numbers: simulator_test.cc of openxla/xla; there default memory gives 1 B/s.
"""

from __future__ import annotations

import pytest

from malloc_game import Timeline

READ, WRITE = True, False


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(1.0)


def test_a_lone_copy_takes_its_size_over_the_bandwidth(timeline):
    timeline.start_copy("copy", 8 << 20, is_read=True)
    assert timeline.finish_copy("copy") == 8388608
    assert timeline.elapsed == timeline.waited == 8388608


def test_half_a_bandwidth_doubles_the_time():
    timeline = Timeline(0.5)
    timeline.start_copy("copy", 100, is_read=True)
    assert timeline.finish_copy("copy") == 200


def test_a_memory_bound_instruction_lets_no_copy_progress(timeline):
    timeline.start_copy("copy", 32, is_read=True)
    timeline.run(16, default_bytes=16)
    assert timeline.finish_copy("copy") == 32
    assert timeline.elapsed == 48
    assert timeline.waited == 32


def test_more_bytes_than_the_bandwidth_carries_is_no_negative_idle_time(timeline):
    timeline.start_copy("copy", 32, is_read=True)
    timeline.run(16, default_bytes=100)
    assert timeline.reads == {"copy": 32}


def test_an_asynchronous_slice_takes_the_bytes_it_reads(timeline):
    timeline.start_copy("slice", 6291456, is_read=True)
    timeline.finish_copy("slice")
    assert timeline.elapsed == 6291456


def test_slices_copies_and_compute_overlap(timeline):
    timeline.start_copy("slice", 256, is_read=True)
    timeline.start_copy("first copy", 256, is_read=True)
    assert timeline.finish_copy("slice") == 256
    assert timeline.finish_copy("first copy") == 256
    timeline.start_copy("second copy", 512, is_read=True)
    timeline.run(384, default_bytes=0)
    assert timeline.finish_copy("second copy") == 128
    assert timeline.elapsed == 1024


def _loop(timeline: Timeline, outer_trips: int) -> None:
    """A loop of 42 trips: per trip an addition and a comparison, a constant; one copy around it."""
    timeline.run(12, 12, 42 * outer_trips)
    timeline.run(8, 8, outer_trips)
    timeline.run(9, 9, 42 * outer_trips)
    timeline.run(8, 8, 42 * outer_trips)


def test_loop_bodies_count_once_for_each_trip(timeline):
    _loop(timeline, 1)
    assert timeline.elapsed == 12 * 42 + 8 + 9 * 42 + 8 * 42 == 1226


def test_nested_loops_multiply_their_trips(timeline):
    _loop(timeline, 27)
    timeline.run(12, 12, 27)
    timeline.run(8, 8)
    timeline.run(9, 9, 27)
    timeline.run(8, 8, 27)
    assert timeline.elapsed == 1226 * 27 + 12 * 27 + 8 + 9 * 27 + 8 * 27 == 33893


def test_a_wait_inside_a_loop_counts_once_for_each_trip(timeline):
    timeline.start_copy("copy", 10, is_read=True)
    assert timeline.finish_copy("copy", trip_count=3) == 10
    assert timeline.elapsed == timeline.waited == 30


def test_a_loop_body_gives_its_idle_bandwidth_once(timeline):
    timeline.start_copy("copy", 100, is_read=True)
    timeline.run(10, 4, trip_count=7)
    assert timeline.reads == {"copy": 94}
    assert timeline.elapsed == 70


# --- queues -----------------------------------------------------------------------------------


@pytest.fixture
def both_busy(timeline) -> Timeline:
    timeline.start_copy("read", 512, is_read=READ)
    timeline.start_copy("write", 128, is_read=WRITE)
    return timeline


@pytest.fixture
def read_busy(timeline) -> Timeline:
    timeline.start_copy("read", 512, is_read=READ)
    return timeline


def test_a_copy_that_was_awaited_is_not_waited_for_again(read_busy):
    assert read_busy.finish_copy("read") == 512
    assert not read_busy.reads and not read_busy.writes
    assert read_busy.finish_copy("read") == 0
    assert not read_busy.reads and not read_busy.writes
    assert read_busy.elapsed == 512


def test_two_busy_queues_share_the_bandwidth_while_one_is_awaited(both_busy):
    assert both_busy.finish_copy("write") == 256
    assert both_busy.reads == {"read": 384} and not both_busy.writes
    assert both_busy.finish_copy("read") == 384
    assert not both_busy.reads and not both_busy.writes


def test_an_instruction_in_default_memory_leaves_the_read_queue_as_it_is(read_busy):
    read_busy.run(256, default_bytes=256)
    assert read_busy.elapsed == 256
    assert read_busy.reads == {"read": 512} and not read_busy.writes


def test_an_instruction_that_reads_alternate_memory_lets_both_queues_share_its_idle_time(both_busy):
    # 64 cycles for an operand in alternate memory, 128 for an output in default memory.
    both_busy.run(192, default_bytes=128)
    assert both_busy.elapsed == 192 and both_busy.waited == 0
    assert both_busy.reads == {"read": 480}
    assert both_busy.writes == {"write": 96}


def test_an_instruction_that_reads_alternate_memory_gives_its_idle_time_to_the_only_copy(read_busy):
    read_busy.run(192, default_bytes=128)
    assert read_busy.elapsed == 192 and read_busy.waited == 0
    assert read_busy.reads == {"read": 448} and not read_busy.writes


def test_an_instruction_without_copies_takes_its_own_time(timeline):
    timeline.run(1024, default_bytes=1024)
    assert timeline.elapsed == 1024
    assert not timeline.reads and not timeline.writes


def test_the_read_speeds_up_when_the_write_queue_runs_dry(both_busy):
    # 256 cycles at half speed move 128 bytes of each, 384 at full speed move the rest.
    assert both_busy.finish_copy("read") == 640


def test_idle_time_that_outlasts_one_queue_goes_to_the_other_in_full(both_busy):
    # Where ours is not XLA's: there the read would go on with half the bandwidth (334 to go).
    both_busy.idle(256 + 100)
    assert both_busy.reads == {"read": 284} and not both_busy.writes


def test_a_completed_copy_is_not_waited_for(timeline):
    timeline.start_copy("read", 512, is_read=READ)
    timeline.idle(512)
    assert timeline.finish_copy("read") == 0
    assert timeline.elapsed == 0


def test_a_queue_is_first_in_first_out(timeline):
    timeline.start_copy("first", 100, is_read=READ)
    timeline.start_copy("second", 50, is_read=READ)
    timeline.idle(120)
    assert timeline.reads == {"second": 30}
    timeline.start_copy("third", 70, is_read=READ)
    assert timeline.finish_copy("third") == 100
    assert not timeline.reads


def test_an_empty_copy_needs_no_time(timeline):
    timeline.start_copy("nothing", 0, is_read=READ)
    assert not timeline.reads
    assert timeline.finish_copy("nothing") == 0
