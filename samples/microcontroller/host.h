#ifndef HOST_H
#define HOST_H

#include <stdint.h>

/* The int8 codes (MODEL_ROWS, MODEL_CHANNELS) of one dataset (MODEL_ROWS, MODEL_COLUMNS). Where the model says so, its
   rows are sorted, in place. Returns 1, and touches neither, when it holds NaN; 0 otherwise. */
int host_codes(float *dataset, int8_t *codes);

/* The estimate that a code of the output of a parameter stands for: finite and positive whatever the code. */
float host_estimate(int parameter, int8_t code);

#endif
