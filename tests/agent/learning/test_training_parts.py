"""The pieces of training on many programs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from agent.learning.buckets import PaddedShape, leave_out_long, make_buckets, pad_program
from agent.learning.config import (
    AgentConfig,
    ConfigError,
    NetworkConfig,
    TrainConfig,
)
from agent.learning.features import OUTLOOK_SIZE, make_outlook, outlook_features
from agent.learning.inference import initial_inference, observation_size
from agent.learning.stream_updates import reanalyse
from agent.learning.targets import stream_windows
from agent.learning.training_config import PrioritisedReplayConfig, ReanalyseConfig, TrainingConfig
from agent.learning.types import Moves
from agent.learning.updates import init_train_state, learning_rate
from agent.learning.weights import load_agent, save_agent
from agent.learning.zero_shot_play import scores, zero_shot
from tests.helpers.training_for_tests import SMALL, tasks

# --- settings ---


def test_a_training_config_survives_json():
    text = SMALL.to_json()
    assert TrainingConfig.from_json(text) == SMALL
    assert TrainingConfig.from_json("{}") == TrainingConfig()


def test_a_partial_config_changes_only_what_it_names():
    config = TrainingConfig.from_json('{"agent": {"search": {"num_simulations": 3}}}')
    assert config.agent.search.num_simulations == 3
    default = TrainingConfig()
    assert config.agent.train == default.agent.train
    assert config.agent.network == default.agent.network


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"replay": {"capacity": 0}}', "capacity"),
        ('{"replay": {"capacity": 64}}', "num_games"),
        ('{"reanalyse": {"fraction": 2.0}}', "fraction"),
        ('{"agent": {"self_play": {"chunk_moves": 3}}}', "chunk_moves"),
        ('{"agent": {"search": {"dynamics": "env"}}}', "fraction"),
        ('{"agent": {"rules": "piecemeal"}}', "rules"),
        ('{"agent": {"network": {"dtype": "int8"}}}', "dtype"),
        ('{"batch": 3}', "batch"),
        ("[]", "object"),
        ("{", "JSON"),
    ],
)
def test_a_bad_training_config_is_named(text, named):
    with pytest.raises(ConfigError, match=named):
        TrainingConfig.from_json(text)


def test_the_learning_rate_rises_and_falls():
    train = TrainConfig(learning_rate=1.0, warmup_updates=10, decay_updates=90)
    rate = learning_rate(AgentConfig(train=train))
    np.testing.assert_allclose([rate(n) for n in (0, 5, 10, 100)], [0, 0.5, 1, 0.1], atol=1e-6)
    constant = learning_rate(AgentConfig(train=TrainConfig(learning_rate=0.5)))
    assert float(constant(0)) == float(constant(10**6)) == 0.5


# --- programs ---


@functools.partial(jax.jit, static_argnums=1)
def _random_play(program, num_moves):
    def move(state, key):
        legal, seen = mg.legal_actions(program, state), mg.observe(program, state)
        noise = jax.random.gumbel(key, (3,))
        action = jnp.argmax(jnp.where(legal, noise, -jnp.inf))
        state = mg.step(program, state, action)
        return state, (action, legal, state.reward, seen)

    keys = jax.random.split(jax.random.key(0), num_moves)
    return jax.lax.scan(move, mg.init(program), keys)


def test_padding_does_not_change_the_game():
    small, large = tasks(14, 90)
    buckets = make_buckets([small, large], 8)
    assert len(buckets) == 2
    # In the shape of a program that is several times as large.
    shapes = jax.tree.map(lambda x: x[0], buckets[1].programs)
    [alone] = [b for b in buckets if b.tasks[0] is small]
    shape = dataclasses.replace(_shape_of(shapes), granules=small.program.num_granules)
    padded = pad_program(small.program, shape)
    assert padded.max_decisions > small.program.max_decisions == alone.max_decisions
    count = int(small.program.num_decisions) + 3  # and some moves after the end
    one, expected = _random_play(small.program, count)
    other, found = _random_play(jax.tree.map(jnp.asarray, padded), count)
    assert int(one.latency) == int(other.latency) and bool(other.done)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(set(np.asarray(expected[0]).tolist())) > 1


def _shape_of(program):
    return PaddedShape(
        decisions=program.max_decisions,
        times=program.max_times,
        tables=program.cycles.shape[-1],
        effects=program.effect_time.shape[-1],
        exclusions=program.excluding_group.shape[-1],
        granules=program.num_granules,
    )


def test_programs_of_one_size_share_a_bucket_of_limited_length():
    buckets = make_buckets(tasks(10, 12, 14, 90), 2)
    assert [len(b.tasks) for b in buckets] == [2, 1, 1]
    first, second = (jax.tree.map(np.shape, b.programs) for b in buckets[:2])
    assert first.decision_time[1:] == second.decision_time[1:]


def test_long_programs_are_left_out_with_a_line():
    short, long = tasks(10, 90)
    kept, lines = leave_out_long([short, long], 60)
    assert kept == [short]
    assert len(lines) == 1 and long.name in lines[0]
    with pytest.raises(ConfigError, match="max_decisions"):
        leave_out_long([long], 5)


def test_an_outlook_is_finite_bounded_and_blind_to_padding():
    [task] = tasks(30)
    count = int(task.program.num_decisions)
    padded = make_buckets([task], 1)[0].programs
    padded = jax.tree.map(lambda x: jnp.asarray(x[0]), padded)
    plain, wide = (
        jax.jit(make_outlook)(jax.tree.map(jnp.asarray, program))
        for program in (task.program, padded)
    )
    assert 0 < float(plain.stake) <= 1.0
    np.testing.assert_allclose(plain.stake, wide.stake, rtol=1e-5)
    np.testing.assert_allclose(plain.columns[:count], wide.columns[:count], atol=1e-5)
    assert not np.asarray(wide.columns[count:]).any()
    seen = jax.jit(outlook_features)((padded, wide), mg.init(padded))
    assert seen.shape == (OUTLOOK_SIZE,)
    assert np.isfinite(seen).all() and np.abs(seen).max() <= 2


# --- targets ---

TARGET = AgentConfig(train=TrainConfig(unroll_steps=2, td_steps=2, discount=0.5))


def _moves(is_last=(), is_cut=()) -> Moves:
    number = np.arange(5)
    return Moves(
        observation=jnp.ones((5, 1), jnp.float16),
        legal=jnp.ones((5, 3), bool),
        action=jnp.array([2, 1, 0, 1, 2], jnp.int8),
        reward=jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        policy=jax.nn.one_hot(jnp.arange(5) % 3, 3),
        is_searched=jnp.ones(5, bool),
        is_target=jnp.ones(5, bool),
        value=jnp.array([10.0, 20.0, 30.0, 40.0, 50.0]),
        is_last=jnp.array(np.isin(number, is_last)),
        is_cut=jnp.array(np.isin(number, is_cut)),
    )


@pytest.mark.parametrize(
    ("ends", "value", "value_weight", "policy_weight", "reward"),
    [
        # r0 + r1 / 2 + v2 / 4, ...
        ({}, [1 + 1 + 7.5, 2 + 1.5 + 10, 3 + 2 + 12.5], [1, 1, 1], [1, 1, 1], [1, 2]),
        # The game ends with move 1: what follows is absorbing, and known to be.
        ({"is_last": [1]}, [2, 2, 0], [1, 1, 1], [1, 1, 0], [1, 2]),
        # The stream is cut after move 1: its value stands for what would have come.
        ({"is_cut": [1]}, [1 + 10, 20, None], [1, 0, 0], [1, 1, 0], [1, 2]),
        # Cut where the game ends anyway, or after it, makes no difference.
        ({"is_last": [1], "is_cut": [1]}, [2, 2, 0], [1, 1, 1], [1, 1, 0], [1, 2]),
        ({"is_last": [0], "is_cut": [1]}, [1, 0, 0], [1, 1, 1], [1, 0, 0], [1, 0]),
    ],
)
def test_targets_stop_where_games_end_and_streams_are_cut(
    ends, value, value_weight, policy_weight, reward
):
    windows = stream_windows(TARGET, _moves(**ends))
    known = [v for v in value if v is not None]
    np.testing.assert_allclose(windows.value[: len(known)], known)
    np.testing.assert_array_equal(windows.value_weight, value_weight)
    np.testing.assert_array_equal(windows.policy_weight, policy_weight)
    np.testing.assert_array_equal(windows.reward, reward)


def test_reanalyse_changes_a_fraction_and_only_what_search_chose():
    config = dataclasses.replace(SMALL, reanalyse=ReanalyseConfig(fraction=0.5))
    params = init_train_state(config.agent, jax.random.key(0)).params
    length, size = config.sequence_moves, mg.OBSERVATION_SIZE + OUTLOOK_SIZE
    key = jax.random.key(1)
    moves = Moves(
        observation=jax.random.normal(key, (4, length, size)).astype(jnp.float16),
        legal=jnp.ones((4, length, 3), bool).at[..., 0].set(False),
        action=jnp.ones((4, length), jnp.int8),
        reward=jnp.zeros((4, length)),
        policy=jnp.tile(jnp.array([0.0, 1.0, 0.0]), (4, length, 1)),
        is_searched=jnp.ones((4, length), bool).at[0].set(False),
        is_target=jnp.ones((4, length), bool),
        value=jnp.full((4, length), 7.0),
        is_last=jnp.zeros((4, length), bool),
        is_cut=jnp.zeros((4, length), bool),
    )
    fresh = jax.jit(functools.partial(reanalyse, config))(params, moves, key)
    np.testing.assert_array_equal(fresh.policy[0], moves.policy[0])  # imitated
    assert np.abs(fresh.policy[1, :3] - moves.policy[1, :3]).max() > 0.1
    np.testing.assert_array_equal(fresh.policy[1, :3, 0], 0.0)  # illegal
    np.testing.assert_array_equal(fresh.policy[2:], moves.policy[2:])
    np.testing.assert_array_equal(fresh.value[2:], 7.0)
    assert (np.asarray(fresh.value[:2]) != 7.0).all()
    untouched = dataclasses.replace(config, reanalyse=ReanalyseConfig(fraction=0.0))
    assert reanalyse(untouched, params, moves, key) is moves


# --- released agents ---


@pytest.fixture(scope="module")
def agent():
    params = init_train_state(SMALL.agent, jax.random.key(3)).params
    # Away from the uniform policy that fresh networks have.
    keys = iter(jax.random.split(jax.random.key(4), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)
    return SMALL.agent, params


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("bfloat16", 1e-2)])
def test_an_agent_file_gives_the_same_agent(agent, tmp_path, dtype, tolerance):
    path = tmp_path / "agent.msgpack"
    save_agent(path, *agent, dtype=dtype)
    config, params = load_agent(path)
    assert config == agent[0]
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(agent[1]), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=tolerance)


def test_an_unusable_agent_file_is_one_clear_error(agent, tmp_path):
    path = tmp_path / "agent.msgpack"
    with pytest.raises(ConfigError, match="cannot read"):
        load_agent(path)
    save_agent(path, *agent)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x00" * 64, b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"agent\.msgpack"):
            load_agent(path)
    other = dataclasses.replace(agent[0], network=NetworkConfig(hidden_size=16))
    save_agent(path, other, agent[1])
    with pytest.raises(ConfigError, match="parameters"):
        load_agent(path)


# The slow one is of what the agent that ships does, see test_pretrained.
@pytest.mark.parametrize("dynamics", [pytest.param("learned", marks=pytest.mark.slow), "env"])
def test_zero_shot_plays_one_legal_game_the_same_every_time(agent, dynamics):
    problem = mg.random_problem(5, num_instructions=12)
    actions, latency = zero_shot(problem, agent, num_simulations=3, dynamics=dynamics)
    program = mg.encode(problem)
    assert int(mg.replay(program, jnp.asarray(actions)).latency) == latency
    again, _ = zero_shot(problem, agent, num_simulations=3, dynamics=dynamics)
    np.testing.assert_array_equal(actions, again)


def test_bfloat16_networks_keep_float32_parameters_and_predictions(agent):
    config, params = agent
    low = dataclasses.replace(config, network=dataclasses.replace(config.network, dtype="bfloat16"))
    fresh = init_train_state(low, jax.random.key(0)).params
    assert {x.dtype for x in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    observation = jax.random.normal(jax.random.key(1), (4, observation_size(config)))
    infer = jax.jit(initial_inference, static_argnums=0)
    exact, _ = infer(config, params, observation)
    rounded, value = infer(low, params, observation)
    assert rounded.policy_logits.dtype == rounded.hidden.dtype == value.dtype == jnp.float32
    difference = np.abs(exact.policy_logits - rounded.policy_logits).max()
    assert 0 < difference < 0.1 * np.abs(exact.policy_logits).max() + 0.05


def test_replay_too_small_for_one_chunk_is_an_error():
    with pytest.raises(ConfigError, match="capacity"):
        dataclasses.replace(SMALL, replay=PrioritisedReplayConfig(capacity=8))


@pytest.mark.filterwarnings("error")
def test_scores_before_the_first_game_has_ended_are_not_a_number_and_no_warning():
    buckets = make_buckets(tasks(10, 12), 2)
    found = scores(buckets, {})
    assert list(found) == ["saved"] and np.isnan(found["saved"])
    [task, *_] = [task for bucket in buckets for task in bucket.tasks]
    half = {task.name: 0.5 * float(task.program.default_cycles)}
    assert scores(buckets, half)["saved"] == pytest.approx(0.5)
