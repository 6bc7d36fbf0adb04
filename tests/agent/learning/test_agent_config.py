"""Settings: validation and the JSON round trip."""

import dataclasses

import pytest

from agent.learning.config import AgentConfig, ConfigError, SearchConfig, TrainConfig


def test_json_round_trip_keeps_every_field():
    config = AgentConfig(
        search=SearchConfig(num_simulations=3, dynamics="env"),
        train=TrainConfig(learning_rate=0.5, td_steps=7),
        imitate_best=False,
    )
    assert AgentConfig.from_json(config.to_json()) == config
    assert hash(AgentConfig.from_json(config.to_json())) == hash(config)


def test_missing_fields_take_their_defaults():
    config = AgentConfig.from_json('{"train": {"batch_size": 3}}')
    expected = dataclasses.replace(AgentConfig(), train=TrainConfig(batch_size=3))
    assert config == expected


def test_former_names_of_fields_are_read():
    config = AgentConfig.from_json('{"self_play": {"stretches": 3}}')
    assert config.self_play.lns_windows == 3
    with pytest.raises(ConfigError, match="'stretches'"):
        AgentConfig.from_json('{"stretches": 3}')


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "need an object"),
        ('{"trian": {}}', "'trian'"),
        ('{"train": 3}', "agent config.train"),
        ('{"train": {"batch": 3}}', "'batch'"),
        ('{"train": {"batch_size": "3"}}', "TrainConfig.batch_size: '3'"),
        ('{"train": {"batch_size": true}}', "TrainConfig.batch_size: True"),
        ('{"train": {"batch_size": 0}}', "TrainConfig.batch_size: 0"),
        ('{"train": {"discount": 1.5}}', "TrainConfig.discount: 1.5"),
        ('{"train": {"learning_rate": NaN}}', "NaN is not allowed"),
        ('{"search": {"dynamics": "true"}}', "SearchConfig.dynamics: 'true'"),
        ('{"network": {"num_bins": 4}}', "NetworkConfig.num_bins: 4"),
        ('{"self_play": {"num_games": 1}}', "SelfPlayConfig.num_games: 1"),
        ('{"imitate_fraction": -0.1}', "AgentConfig.imitate_fraction: -0.1"),
    ],
)
def test_bad_settings_are_errors_that_name_the_field(text, named):
    with pytest.raises(ConfigError) as error:
        AgentConfig.from_json(text)
    assert named in str(error.value)
