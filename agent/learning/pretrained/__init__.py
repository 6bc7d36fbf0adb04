"""The agent that ships: trained by `make train` with the config and seed beside this file."""

from __future__ import annotations

import functools
import pathlib

from agent.learning.weights import Agent, load_agent

AGENT_FILE = pathlib.Path(__file__).parent / "agent.msgpack"
TRAINING_FILE = pathlib.Path(__file__).parent / "training.json"


@functools.cache
def load_pretrained() -> Agent:
    """The config and parameters that ship. Raises: ConfigError if the file is damaged."""
    return load_agent(AGENT_FILE)


__all__ = ["AGENT_FILE", "TRAINING_FILE", "load_pretrained"]
