#include "estimator.h"

#include "host.h"
#include "model.integer.h"
#include "network.h"

int estimate(float *dataset, float *estimates)
{
    static int8_t scratch[MODEL_SCRATCH_BYTES];
    int8_t outputs[MODEL_PARAMETERS];
    if (host_codes(dataset, scratch))
        return 1;
    network(scratch, outputs);
    for (int parameter = 0; parameter < MODEL_PARAMETERS; parameter++)
        estimates[parameter] = host_estimate(parameter, outputs[parameter]);
    return 0;
}
