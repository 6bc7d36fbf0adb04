"""Gumbel MuZero for the mallocGame: networks, search, games, replay, updates.

`config` has the settings, `networks`, `inference` and `search` what plays, `self_play` and `stream`
the games, `replay`, `targets`, `loss` and `updates` the learning. `trainer` trains one network on
many programs, `training_run` is the command; `pretrained` is what it made. Start at `inference`.
"""

__all__ = [
    "buckets",
    "checkpoint",
    "compiled",
    "config",
    "drop_backup",
    "features",
    "hosts",
    "inference",
    "loss",
    "mesh",
    "metrics",
    "networks",
    "pretrained",
    "replay",
    "search",
    "self_play",
    "stream",
    "stream_replay",
    "stream_updates",
    "targets",
    "trainer",
    "training_config",
    "training_run",
    "types",
    "updates",
    "value_support",
    "variants",
    "weights",
    "zero_shot_play",
]
