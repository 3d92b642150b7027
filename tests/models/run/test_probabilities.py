"""Probabilities, at the ends of what float64 holds."""

from __future__ import annotations

import numpy as np

from secformer.models.run.probabilities import sigmoid, softmax


def test_sigmoid() -> None:
    x = np.array([-1e4, -800.0, -40.0, -1.0, 0.0, 1.0, 40.0, 1e4])
    np.testing.assert_allclose(sigmoid(x)[2:], 1.0 / (1.0 + np.exp(-x[2:])), rtol=1e-15)
    assert sigmoid(x)[:2].tolist() == [0.0, 0.0] and sigmoid(x)[-1] == 1.0 and np.isnan(sigmoid(np.array(np.nan)))


def test_softmax() -> None:
    found = softmax(np.array([[1e4, 1e4, -np.inf], [0.0, np.log(3.0), -1e4]]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]], rtol=1e-15)
