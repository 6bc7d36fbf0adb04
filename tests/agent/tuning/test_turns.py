"""Turns between ways of searching."""

from agent.tuning.turns import take_turns


def run(gains, number):
    """The order of `number` turns of ways that lower the best by `gains` each time."""
    order, best = [], [1e9]

    def turn(i):
        order.append(i)
        best[0] -= gains[i]

    turns = [lambda i=i: turn(i) for i in range(len(gains))]
    take_turns(turns, lambda: best[0], lambda: number - len(order))
    return order


def test_all_get_a_turn_then_two_of_three_are_of_the_one_that_pays():
    assert run([0, 1000], 9) == [0, 1, 0, 1, 1, 0, 1, 1, 0]
    assert run([1000, 0], 9) == [0, 1, 0, 0, 0, 1, 0, 0, 1]


def test_of_those_that_gain_nothing_the_one_that_waits_longest_is_next():
    assert run([0, 0, 0], 7) == [0, 1, 2, 0, 1, 2, 0]


def test_no_turn_begins_when_no_time_is_left():
    assert run([1, 1], 0) == []
