#ifndef ESTIMATOR_H
#define ESTIMATOR_H

/* The estimates of one dataset: MODEL_PARAMETERS positive numbers for (MODEL_ROWS, MODEL_COLUMNS), whose rows may be put
   in another order. Returns 1, without estimates, when it holds NaN; 0 otherwise. Not reentrant: its memory is static. */
int estimate(float *dataset, float *estimates);

#endif
