#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

/* Run the network on one dataset.

   scratch: MODEL_SCRATCH_BYTES of memory, the dataset's int8 codes (MODEL_ROWS, MODEL_CHANNELS) in front; overwritten.
   outputs: one code for each of MODEL_PARAMETERS. */
void network(int8_t *scratch, int8_t *outputs);

#endif
