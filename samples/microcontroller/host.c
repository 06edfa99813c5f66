#include "host.h"

#include <math.h>
#include <string.h>

#include "model.integer.h" /* toolkit export --format c --precision integer */

enum { ROW = MODEL_COLUMNS * sizeof(float) }; /* bytes */

/* A float's bits as a number in the same order; the zero with a minus sign comes before the other. */
static int32_t rank(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

static int comes_before(const float *row, const float *other)
{
    int column = 0;
    while (column < MODEL_COLUMNS - 1 && rank(row[column]) == rank(other[column]))
        column++;
    return rank(row[column]) < rank(other[column]);
}

/* Ascending by the first column, rows alike there by the next. By insertion: no heap, no recursion. */
static void sort_rows(float *dataset)
{
    for (int row = 1; row < MODEL_ROWS; row++) {
        float moved[MODEL_COLUMNS], *place = dataset + row * MODEL_COLUMNS;
        memcpy(moved, place, ROW);
        for (; place > dataset && comes_before(moved, place - MODEL_COLUMNS); place -= MODEL_COLUMNS)
            memcpy(place, place - MODEL_COLUMNS, ROW);
        memcpy(place, moved, ROW);
    }
}

int host_codes(float *dataset, int8_t *codes)
{
    for (int i = 0; i < MODEL_ROWS * MODEL_COLUMNS; i++)
        if (isnan(dataset[i]))
            return 1;
    if (MODEL_SORTED_ROWS)
        sort_rows(dataset);
    for (int i = 0; i < MODEL_ROWS * MODEL_COLUMNS; i++) {
        const struct model_column c = model_host_columns[i % MODEL_COLUMNS];
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
    const struct model_output o = model_host_outputs[parameter];
    const float z = o.scale * (float)(code - o.zero_point) + o.centre;
    /* log(1 + exp(z)), cut off while the exponential is a normal number: never 0. */
    return fmaxf(z, 0.0f) + log1pf(expf(-fminf(fabsf(z), 86.0f)));
}
