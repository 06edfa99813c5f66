"""Exponential decay seen through noise: y = A exp(-k x) + sigma * noise, sigma being the small fraction to find.

A dataset is 200 readings [x, y] at evenly spaced x from 0 to 5, in that order, as an instrument takes them; the noise
is standard normal and independent. A and k are uniform in their ranges. sigma is a scale, 0.001 to 0.1, and uniform in
its logarithm: 0.001 to 0.01 is met as often as 0.01 to 0.1.
"""

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("x", "y")
PARAMETERS = ("A", "k", "sigma")
READINGS = 200
END = 5.0  # x of the last reading

AMPLITUDE = (0.5, 5.0)
RATE = (0.1, 2.0)  # per unit of x
SIGMA = (0.001, 0.1)


def simulate(count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32 (count, 200, 2) of [x, y], and float32 (count, 3) of [A, k, sigma]."""
    amplitude, rate = rng.uniform(*AMPLITUDE, size=count), rng.uniform(*RATE, size=count)
    sigma = np.exp(rng.uniform(*np.log(SIGMA), size=count))
    x = np.linspace(0.0, END, READINGS)
    datasets = np.empty((count, READINGS, 2), np.float32)
    datasets[..., 0] = x
    noise = sigma[:, None] * rng.standard_normal((count, READINGS))
    datasets[..., 1] = amplitude[:, None] * np.exp(-rate[:, None] * x) + noise
    return datasets, np.stack([amplitude, rate, sigma], axis=1).astype(np.float32)
