"""The strictly positive softplus: log(1 + exp(z)), finite and positive in float32 for every finite z.

As runtimes compute it, log(1 + exp(z)) is exactly 0 below z = -16.65 (TFLite) or -103 (the others), and in TFLite
infinite above 88.7. Here it is max(z, 0) + log1p(exp(-|z|)), the exponential cut off while it is a normal float32:

    u = exp(-min(|z|, CUTOFF))
    y = (z - min(z, 0)) + u * P(u)        P(u) = log1p(u) / u on [0, 1], between .69 and 1

Every step is written so that a reader of the file can bound it op by op, and so that NaN in gives NaN out:
`z - min(z, 0)` carries it. `relu(z)` in its place makes TFLite duplicate the Dense op and lets OpenVINO hide NaN.
"""

from __future__ import annotations

from typing import Any

CUTOFF = 86.0  # exp(-86) = 4.47e-38 is the smallest output, 3.8 times the smallest normal float32
SMALLEST_U = 4e-38  # just below exp(-CUTOFF): no value is cut off here; the bound is for whoever reads the file

# XNNPACK's EXP loses .7 ulp per unit of |z| (62 ulp at -86). Cody-Waite: exp(-a) = 2^-n * exp(-r) n whole, |r| < .35.
# ln 2 is split into a part of 10 bits, whose products with n <= 124 are exact, and the rest.
LOG2_E = 1.44269504
LN2_HIGH = 0.693359375
LN2_LOW = -2.12194440e-4
LARGEST_R = 0.35  # ln(2) / 2 = .3466 and the rounding of n: no value is cut off here either

# 2^-n without POW, which XNNPACK does not delegate and TFLite Micro does not have: exp(-n ln 2) is off by less than 2^7
# ulp, and Veltkamp's splitting, c - (c - q) with c = q * (2^12 + 1), rounds it to 12 bits: exactly the power of two.
LN2 = 0.6931472
VELTKAMP = 4097.0

# P(u) = log1p(u) / u on [0, 1], degree 8, constant term first; relative error 1.5e-7 evaluated in float32.
LOG1P = (
    0.9999999403953552,
    -0.4999943673610687,
    0.3331793546676636,
    -0.2483394593000412,
    0.1907130926847458,
    -0.13590599596500397,
    0.07738073915243149,
    -0.028991956263780594,
    0.0051058256067335606,
)


# For kernels that compute in float16, where what is below 2^-14 may become 0 and sums beyond 65504 are infinite.
CUTOFF_IN_HALF = 9.6875  # exp(-9.6875) = 6.20e-5 is 1.7% above 2^-14, and both are float16 numbers
SMALLEST_U_IN_HALF = 6.2e-5  # no value is cut off here either
# log1p(u) / u on [0, 1] as above, every coefficient a float16 number: relative error 1.2e-5 in float32.
LOG1P_IN_HALF = (1.0, -0.49951171875, 0.325927734375, -0.21142578125, 0.10235595703125, -0.024200439453125)


def positive_softplus(z: Any) -> Any:
    """Softplus of a float32 tensor of any shape, as TensorFlow ops.

    Returns:
        float32, same shape: at least 4.4e-38, and within 4 ulp of log(1 + exp(z)) for z >= -86, in LiteRT, ONNX Runtime
        and OpenVINO f32.
    Source: Cody & Waite 1980 (argument reduction); Dekker 1971 (Veltkamp's splitting).
    """
    import tensorflow as tf

    a = tf.minimum(tf.abs(z), CUTOFF)
    n = tf.floor(a * LOG2_E + 0.5)
    r = (a - n * LN2_HIGH) - n * LN2_LOW
    q = tf.exp(n * -LN2)
    c = q * VELTKAMP
    power = c - (c - q)
    u = power * tf.exp(-tf.maximum(r, -LARGEST_R))
    return _sum(z, tf.minimum(tf.maximum(u, SMALLEST_U), 1.0), LOG1P)


def positive_softplus_in_half(z: Any) -> Any:
    """The same for kernels that compute float32 files in float16; its constants are numbers of both.

    Returns:
        Computed in float16: at least 2^-14, and within 1.3e-3 of log(1 + exp(z)) for z >= -9.68, relative. Computed in
        float32: at least 6.2e-5, and within 1.4e-5.
    """
    import tensorflow as tf

    u = tf.exp(-tf.minimum(tf.abs(z), CUTOFF_IN_HALF))  # without argument reduction: 2^-n would leave float16
    return _sum(z, tf.minimum(tf.maximum(u, SMALLEST_U_IN_HALF), 1.0), LOG1P_IN_HALF)


def _sum(z: Any, u: Any, coefficients: tuple[float, ...]) -> Any:
    """max(z, 0) + u * P(u)."""
    import tensorflow as tf

    series = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        series = series * u + coefficient
    return (z - tf.minimum(z, 0.0)) + u * series
