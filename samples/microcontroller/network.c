/* The network of an integer-only file, step by step as its header lists them: bit for bit what TensorFlow Lite's
   reference kernels compute, in integers, without heap and without state. */
#include "network.h"

#include <string.h>

#include "model.integer.h" /* toolkit export --format c --precision integer */

#ifdef __ARM_FEATURE_SIMD32
#include <arm_acle.h>
#endif

/* sum + codes . weights. Sums of whole numbers are the same in any order. */
#ifdef __GNUC__
__attribute__((noinline)) /* in a loop of its own its variables stay in registers: 30% fewer instructions */
#endif
static int32_t dot(const int8_t *codes, const int8_t *weights, int length, int32_t sum)
{
#ifdef __ARM_FEATURE_SIMD32 /* Cortex-M4, M7: four products in eight instructions */
    for (; length >= 4; length -= 4, codes += 4, weights += 4) {
        int8x4_t four, by;
        memcpy(&four, codes, sizeof four);
        memcpy(&by, weights, sizeof by);
        sum = __smlad(__sxtb16(four), __sxtb16(by), sum);
        sum = __smlad(__sxtb16(four >> 8), __sxtb16(by >> 8), sum);
    }
#endif
    for (int i = 0; i < length; i++)
        sum += codes[i] * weights[i];
    return sum;
}

/* sum * multiplier * 2^(shift - 31), to the nearest, rounded twice: the product to an int32, halves away from 0, and
   that by the shift, halves away from 0. */
static int32_t scaled(int32_t sum, const struct model_filter *filter)
{
    const int left = filter->shift > 0 ? filter->shift : 0, right = left - filter->shift;
    const int64_t product = (int64_t)(int32_t)((uint32_t)sum << left) * filter->multiplier;
    const int32_t half = 1 << 30;
    const int32_t high = (int32_t)((product + (product >= 0 ? half : 1 - half)) / ((int64_t)1 << 31));
    const int32_t mask = (int32_t)(((int64_t)1 << right) - 1);
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0));
}

static void conv(const struct model_step *step, const int8_t *from, int8_t *to)
{
    /* Taps next to each other are one piece of memory. */
    const int pieces = step->dilation == 1 ? 1 : step->width;
    const int length = step->width * step->channels / pieces;
    for (int row = 0; row < step->out_rows; row++, from += step->stride * step->channels) {
        const int8_t *weights = (const int8_t *)model + step->kernel;
        for (int channel = 0; channel < step->out_channels; channel++) {
            const struct model_filter *filter = model_filters + step->filters + channel;
            int32_t sum = filter->bias;
            for (int piece = 0; piece < pieces; piece++, weights += length)
                sum = dot(from + piece * step->dilation * step->channels, weights, length, sum);
            const int32_t code = scaled(sum, filter) + step->zero_point;
            *to++ = (int8_t)(code < step->lowest ? step->lowest : code > step->highest ? step->highest : code);
        }
    }
}

static void pool(const struct model_step *step, const int8_t *from, int8_t *to)
{
    for (int row = 0; row < step->out_rows; row++, from += step->stride * step->channels)
        for (int channel = 0; channel < step->channels; channel++) {
            int8_t largest = from[channel];
            for (int i = 1; i < step->width; i++)
                if (from[i * step->channels + channel] > largest)
                    largest = from[i * step->channels + channel];
            *to++ = largest;
        }
}

static void pad(const struct model_step *step, const int8_t *from, int8_t *to)
{
    const size_t before = (size_t)(step->before * step->channels), inner = (size_t)(step->rows * step->channels);
    const size_t all = (size_t)(step->out_rows * step->channels);
    memset(to, step->fill, before);
    memcpy(to + before, from, inner);
    memset(to + before + inner, step->fill, all - before - inner);
}

void network(int8_t *scratch, int8_t *outputs)
{
    for (const struct model_step *step = model_steps; step < model_steps + MODEL_STEPS; step++) {
        const int8_t *from = scratch + step->source;
        int8_t *to = (step->output ? outputs : scratch) + step->target;
        switch (step->kind) {
        case MODEL_CONV: conv(step, from, to); break;
        case MODEL_POOL: pool(step, from, to); break;
        case MODEL_PAD: pad(step, from, to); break;
        }
    }
}
