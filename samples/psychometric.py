"""Psychometric function of a detection task: how often a stimulus is reported, by its strength.

    P(response = 1) = (1 - lapse) / (1 + exp(-2 log(19) (stimulus - threshold) / width))

An observer who never lapses reports half the stimuli at the threshold, and the width is the way from 5% to 95% of that
curve; the lapse rate is the part of trials missed however strong the stimulus. The task is yes/no, and there is no
guessing: the rate of a weak stimulus goes to 0.
Source: Wichmann & Hill 2001, Perception & Psychophysics 63:1293 (lapse); Schuett, Harmeling, Macke & Wichmann 2016,
Vision Research 122:105 (this width).

A dataset is 200 trials [stimulus, response] by the method of constant stimuli: 20 strengths, 0.15 to 3 in steps of
0.15, 10 times each, in an order shuffled anew for every dataset.
"""

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("stimulus", "response")  # strength; 0 or 1
PARAMETERS = ("threshold", "width", "lapse")
STRENGTHS = np.linspace(0.15, 3.0, 20)
REPEATS = 10  # trials at each strength

THRESHOLD = (0.5, 1.5)  # in units of strength
WIDTH = (0.3, 1.5)  # in units of strength; the strongest stimulus is always above 95%
LAPSE = (0.001, 0.15)


def simulate(count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32 (count, 200, 2) of [stimulus, response], and float32 (count, 3) of [threshold, width, lapse].

    Each parameter is uniform in its range.
    """
    threshold, width, lapse = (rng.uniform(*limits, size=count) for limits in (THRESHOLD, WIDTH, LAPSE))
    design = np.repeat(STRENGTHS, REPEATS)
    stimulus = rng.permuted(np.broadcast_to(design, (count, design.size)), axis=1)
    rate = response_rate(stimulus, threshold[:, None], width[:, None], lapse[:, None])
    datasets = np.stack([stimulus, rng.random(rate.shape) < rate], axis=2).astype(np.float32)
    return datasets, np.stack([threshold, width, lapse], axis=1).astype(np.float32)


def response_rate(
    stimulus: NDArray[np.float64],
    threshold: NDArray[np.float64],
    width: NDArray[np.float64],
    lapse: NDArray[np.float64],
) -> NDArray[np.float64]:
    """P(response = 1); all arguments broadcast."""
    return (1 - lapse) / (1 + np.exp(-2 * np.log(19) * (stimulus - threshold) / width))
