"""One call of Gumbel MuZero search for a batch of roots.

The only place where masks are inverted: mctx marks invalid actions, the game legal ones.
"""

import functools

import chex
import jax.numpy as jnp
import mctx

from agent.learning.config import AgentConfig
from agent.learning.inference import Networks, make_recurrent_fn


@chex.dataclass(frozen=True)
class Plan:
    """The outcome of a search at each root."""

    action: chex.Array  # int32[B], always legal
    policy: chex.Array  # float32[B, A], improved policy; 0 for illegal actions
    value: chex.Array  # float32[B], value of the root after search


def plan(
    config: AgentConfig,
    model: Networks,
    root: mctx.RootFnOutput,
    legal: chex.Array,
    gumbel_scale: chex.Array,
    search_key: chex.PRNGKey,
) -> Plan:
    """Searches from `root`. legal: bool[B, A]; gumbel_scale: float32[B], noise of each root.

    model: a `Model` where dynamics are those of the game.

    True legality holds at the root only, unless `config.search.dynamics` is "env". The key is
    consumed. Source: Danihelka et al., "Policy improvement by planning with Gumbel" (ICLR 2022)."""
    chex.assert_rank([legal, gumbel_scale], [2, 1])
    chex.assert_equal_shape([legal, root.prior_logits])
    search = config.search
    output = mctx.gumbel_muzero_policy(
        params=model,
        rng_key=search_key,
        root=root,
        recurrent_fn=make_recurrent_fn(config),
        num_simulations=search.num_simulations,
        invalid_actions=jnp.logical_not(legal),
        qtransform=functools.partial(
            mctx.qtransform_completed_by_mix_value,
            value_scale=search.value_scale,
            maxvisit_init=search.maxvisit_init,
            rescale_values=search.rescale_values,
        ),
        max_num_considered_actions=search.max_num_considered_actions,
        gumbel_scale=gumbel_scale[:, None],
    )
    return Plan(
        action=output.action,
        policy=output.action_weights,
        value=output.search_tree.node_values[:, output.search_tree.ROOT_INDEX],
    )
