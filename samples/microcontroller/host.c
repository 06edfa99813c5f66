#include "host.h"

#include <math.h>

#include "model.h" /* written by model_header.py: the numbers that the model's file holds */

int host_codes(const float *dataset, int8_t *codes)
{
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        const struct column c = columns[i % COLUMNS];
        if (isnan(dataset[i]))
            return 1;
        const float inside = fminf(fmaxf(dataset[i], c.minimum), c.maximum);
        const int32_t count = (int32_t)rintf((inside - c.minimum) * c.multiplier); /* halves to even */
        *codes++ = (int8_t)(count / c.fine - 128);
        if (c.fine > 1)
            *codes++ = (int8_t)(count % c.fine - 128);
    }
    return 0;
}

float host_estimate(int parameter, int8_t code)
{
    const struct output o = outputs[parameter];
    const float z = o.scale * (float)(code - o.zero_point) + o.centre;
    /* log(1 + exp(z)), cut off while the exponential is a normal number: never 0. */
    return fmaxf(z, 0.0f) + log1pf(expf(-fminf(fabsf(z), 86.0f)));
}
