"""What only `make test-all` runs, beside the tests that are marked slow themselves.

Each is one more of what quick tests hold, too: patterns of ids, from the file's name on, and what
`make test` has of the same behaviour.
"""

from __future__ import annotations

import re

SLOW = {
    # Compiles of their own, of what learns and plans.
    r"test_annealer.py::test_a_planner_that_anneals": "annealing alone, by its keys",
    r"test_training.py::test_each_bucket_is_compiled_once": "the traces of a planner, counted",
    r"test_agent_planning.py::test_learning_beats_random_play": "games that save more as it learns",
    r"test_agent_hints.py::test_an_untrained_network_with_a_hint": "the choices in a hint",
    r"test_agent_hints.py::test_hints_make_the_observation_longer": "a planner that has hints",
    r"test_lns_windows.py::test_a_planner_of_a_problem_keeps": "the best under other costs",
    r"test_pretrained.py::test_the_agent_as_a_solver": "one game of it as a solver",
    r"test_training_parts.py::test_zero_shot_plays_one_legal_game.*env": "test_pretrained",
    r"test_training_parts.py::test_padding_does_not_change_the_game": "padding, in test_game",
    r"test_agent_parts.py::test_one_legal_action_gets_all.*env": "the same, learned",
    # More environments, programs and targets.
    r"test_bench.py::test_peers_play_in_the_same_loop.(BinPack|chess)": "a peer of each package",
    r"test_bench.py::test_searches_are_timed": "the command with made-up speeds",
    r"test_programs.py::test_training_lowers_the_loss.*train_(cnn|resnet|vit)": "two other steps",
    r"test_calibrate.py::test_few_compiles_tell": "test_fidelity measures a tiny program",
    r"test_extract.py::test_every_program_becomes.*(int8|embedding|empty|tiny|chain|parameter)":
        "four other programs",
    r"test_extract.py::test_every_buffer_of_a_suite_program.*decode": "a small training step",
    r"test_extract.py::test_prediction_holds_on_other_generations.(v4|v5p)": "tpu7x",
    r"test_costs.py::test_extractions_of_all_programs_share": "costs are kept for the next program",
    r"test_race_solver.py::test_a_solver_has_its_mapping_of_a_real": "the same, made up",
    r"test_solvers.py::test_a_solver_gives_a_valid.*(evolution|random)": "the other solvers",
    r"test_piecemeal.py::test_the_planner_gets_out_of_dead_ends.0": "the same with four backups",
    r"test_hlo.py::test_sizes_are_the_compilers_own.v6e": "v4",
    r"test_compile.py::test_no_child_and_no_directory_outlive.*(2|9).$": "SIGTERM",
}  # fmt: skip
_PATTERN = re.compile("|".join(f"(?:/{pattern})" for pattern in SLOW))


def is_slow(node_id: str) -> bool:
    """Whether a test is one of these."""
    return _PATTERN.search(node_id) is not None
