"""A planner in a thread of its own."""

import threading
import time

import pytest

from agent.tuning.background import BackgroundPlanner


class Counter:
    """Counts its iterations; a planner as far as the thread can tell."""

    def __init__(self):
        self.iterations, self.thread = 0, threading.current_thread()

    def run(self, seconds, iterations):
        assert seconds > 0 and iterations == 1
        self.iterations += 1
        time.sleep(0.001)


def test_it_plans_between_start_and_stop_only():
    with BackgroundPlanner(Counter) as background:
        background.start(time.monotonic() + 60)
        time.sleep(0.05)
        planner = background.stop()
        done = planner.iterations
        assert done > 0 and planner.thread is not threading.current_thread()
        time.sleep(0.02)
        assert planner.iterations == done
        background.start(time.monotonic() + 60)
        time.sleep(0.05)
        assert background.stop() is planner and planner.iterations > done


def test_it_ends_at_the_deadline():
    with BackgroundPlanner(Counter) as background:
        background.start(time.monotonic())
        time.sleep(0.05)
        assert background.stop().iterations == 0


def test_a_long_iteration_is_not_waited_for_and_its_best_can_be_had():
    may_end = threading.Event()
    changes = []

    class Slow(Counter):
        best = "so far"
        problems = ()

        def run(self, seconds, iterations):
            super().run(seconds, iterations)
            assert may_end.wait(60)

        def set_problem(self, problem, known):
            self.problems += ((problem, known),)

    with BackgroundPlanner(
        Slow, on_change=lambda planner: changes.append(planner.problems)
    ) as background:
        assert background.best() is None
        background.start(time.monotonic() + 60)
        while background.best() is None:
            time.sleep(0.01)
        assert background.best() == "so far"
        time.sleep(0.05)  # it is in its first iteration
        background.set_problem("old")
        background.set_problem("new", ["mapping"])
        may_end.set()
        time.sleep(0.05)
        planner = background.stop()
    assert planner.problems == (("new", ["mapping"]),) and changes == [()]
    assert planner.iterations > 1  # it went on


def test_what_planning_raises_ends_planning_and_loses_nothing():
    def broken():
        raise RuntimeError("no planner")

    with BackgroundPlanner(broken) as background:
        background.start(time.monotonic() + 60)
        assert background.stop() is None and background.best() is None
        assert str(background.fault) == "no planner"

    class Breaks(Counter):
        best = "so far"

        def run(self, seconds, iterations):
            super().run(seconds, iterations)
            if self.iterations == 3:
                raise RuntimeError("no memory")

    with BackgroundPlanner(Breaks) as background:
        background.start(time.monotonic() + 60)
        assert background.stop().iterations <= 3
        background.start(time.monotonic() + 60)
        while background.fault is None:
            time.sleep(0.001)
        assert background.best() == "so far" and background.stop().iterations == 3


def test_leaving_ends_the_thread_whatever_happened():
    with pytest.raises(KeyboardInterrupt), BackgroundPlanner(Counter) as background:
        background.start(time.monotonic() + 60)
        raise KeyboardInterrupt
    # Who has pressed Ctrl-C does not wait for it; it ends after the iteration under way.
    for thread in threading.enumerate():
        if thread.name.startswith("planner"):
            thread.join(timeout=60)
            assert not thread.is_alive()
    with pytest.raises(ValueError), BackgroundPlanner(Counter) as background:
        background.start(time.monotonic() + 60)
        raise ValueError
    assert not any(t.name.startswith("planner") for t in threading.enumerate())
