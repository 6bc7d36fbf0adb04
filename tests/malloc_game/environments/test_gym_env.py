"""The Gymnasium environment: gymnasium's own checker, masks, pictures, copies."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import malloc_game as mg
from tests.helpers.toy import jit_init, jit_step, toy

gymnasium = pytest.importorskip("gymnasium")
from gymnasium.utils.env_checker import check_env  # noqa: E402

from malloc_game.environments import gym  # noqa: E402, F401 - registers the environment

DRAWING = """
    cycles        9   8   9   8
    w  4  param   .   .   .   u2
    x  4  temp    D1  u   .   .
    y  4  out:2   .   D3  -   -
"""
ID = "MallocGame-v0"


@pytest.fixture(scope="module")
def problem() -> mg.Problem:
    return toy(DRAWING).replace(provenance={"compiler": "none"})


def test_gymnasiums_checker_has_nothing_to_say():
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID).unwrapped)


def test_a_game_has_masks_and_rewards_that_sum_to_the_latency_saved(problem):
    env = gymnasium.make(ID, problem=problem)
    features, info = env.reset(seed=0)
    assert features.shape == (mg.OBSERVATION_SIZE,) and features.dtype == np.float32
    program = mg.encode(problem)
    game, total, terminated = jit_init(program), 0.0, False
    for action in (mg.NO_COPY, mg.NO_COPY, mg.COPY):
        assert not terminated
        legal = np.asarray(mg.legal_actions(program, game))
        np.testing.assert_array_equal(info["action_mask"], legal)
        np.testing.assert_array_equal(env.unwrapped.action_masks(), legal)
        game = jit_step(program, game, action)
        _, reward, terminated, truncated, info = env.step(action)
        total += reward
        assert not truncated
    assert terminated
    assert total == int(program.default_cycles) - info["latency"] == 4


def test_it_can_be_made_by_module_and_from_a_file(problem, tmp_path):
    path = tmp_path / "problem.json"
    mg.save_problem(problem, path)
    env = gymnasium.make(
        f"malloc_game.environments.gym:{ID}", problem=str(path), reward_unit="share"
    )
    assert env.unwrapped.problem == problem
    env.reset(seed=0)
    assert env.step(mg.NO_COPY)[1] == pytest.approx(1 / 34)


def test_a_problem_from_a_file_can_be_copied_and_pickled(problem, tmp_path):
    """Gymnasium copies the arguments of `make`; its vector environments pickle them."""
    mg.save_problem(problem, tmp_path / "problem.json")
    loaded = mg.load_problem(tmp_path / "problem.json")
    assert copy.deepcopy(loaded) == pickle.loads(pickle.dumps(loaded)) == problem
    env = gymnasium.make(ID, problem=loaded)
    assert env.spec.make().unwrapped.problem == problem


def test_text_and_image_show_the_mapping_so_far(problem):
    env = gymnasium.make(ID, problem=problem, render_mode="ansi")
    env.reset(seed=0)
    assert "A x" not in env.render()
    env.step(mg.NO_COPY)
    assert "A x" in env.render()
    pytest.importorskip("matplotlib")
    env = gymnasium.make(ID, problem=problem, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (800, 1200, 3)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(mg.MallocGameError, match="none.json"):
        gym.MallocGameEnv(tmp_path / "none.json")
    with pytest.raises(mg.MallocGameError, match="render_mode is 'human'.*rgb_array"):
        gym.MallocGameEnv(render_mode="human")


def test_without_gymnasium_one_line_says_what_to_install():
    code = "import sys; sys.modules['gymnasium'] = None; import malloc_game.environments.gym"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: malloc_game.environments.gym needs gymnasium; install it with:"
        " pip install 'mallocgame[gym]'"
    )
