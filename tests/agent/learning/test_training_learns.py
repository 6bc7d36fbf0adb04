"""Learning is real: from scratch to the known optimum, on small problems that one network plays."""

import numpy as np
import pytest

from tests.helpers.learning import learn


@pytest.mark.slow
def test_one_network_learns_the_optimum_of_several_problems_from_scratch():
    found = learn(seed=0)
    np.testing.assert_array_equal(found["trained"], 1.0)
    assert np.mean(found["untrained"]) < 0.6
    assert found["loss"][1] < 0.2 * found["loss"][0]
    assert found["saved"][1] > 1.3 * found["saved"][0] > 0
