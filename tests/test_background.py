"""A planner in a thread of its own."""

import threading
import time

import pytest

from agent.background import BackgroundPlanner


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
        planner = background.stop(at_least=0.05)
        done = planner.iterations
        assert done > 0 and planner.thread is not threading.current_thread()
        time.sleep(0.02)
        assert planner.iterations == done
        background.start(time.monotonic() + 60)
        assert background.stop(at_least=0.05) is planner and planner.iterations > done


def test_it_ends_at_the_deadline_without_waiting_for_more():
    with BackgroundPlanner(Counter) as background:
        background.start(time.monotonic())
        began = time.monotonic()
        assert background.stop(at_least=60).iterations == 0
        assert time.monotonic() - began < 30


def test_what_planning_raises_is_raised_where_it_is_waited_for():
    def broken():
        raise RuntimeError("no planner")

    with BackgroundPlanner(broken) as background:
        background.start(time.monotonic() + 60)
        with pytest.raises(RuntimeError, match="no planner"):
            background.stop()


def test_leaving_ends_the_thread_whatever_happened():
    with pytest.raises(KeyboardInterrupt), BackgroundPlanner(Counter) as background:
        background.start(time.monotonic() + 60)
        raise KeyboardInterrupt
    names = [t.name for t in threading.enumerate()]
    assert not any(name.startswith("planner") for name in names)
