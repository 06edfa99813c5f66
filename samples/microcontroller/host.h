/* What a processor does around the integer-only network: datasets to codes, codes to estimates. */
#ifndef HOST_H
#define HOST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One dataset, ROWS x COLUMNS floats, to ROWS x CHANNELS codes. 0, or 1 where a number is NaN: such a dataset has no
   estimates, and its codes must not be used. Infinities and numbers beyond the ranges saturate. */
int host_codes(const float *dataset, int8_t *codes);

/* The estimate of a parameter from its output's code: at least 4.47e-38, whatever the code. */
float host_estimate(int parameter, int8_t code);

#ifdef __cplusplus
}
#endif

#endif
