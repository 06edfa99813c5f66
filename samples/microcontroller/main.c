/* On a PC: estimates for float32 datasets on stdin, a line for each.

   estimator           < float32 datasets                     > estimates, as text
   estimator codes     < float32 datasets                     > int8 codes that the network takes
   estimator network   < these codes                          > int8 codes of the outputs, MODEL_PARAMETERS a dataset
   estimator estimates < the codes of the outputs             > estimates, as text */
#include <stdio.h>
#include <string.h>

#include "estimator.h"
#include "host.h"
#include "model.integer.h"
#include "network.h"

static float dataset[MODEL_ROWS * MODEL_COLUMNS], estimates[MODEL_PARAMETERS];
static int8_t codes[MODEL_ROWS * MODEL_CHANNELS], scratch[MODEL_SCRATCH_BYTES], outputs[MODEL_PARAMETERS];

static int refuse(void)
{
    fprintf(stderr, "a dataset holds NaN\n");
    return 1;
}

static void print(void)
{
    for (int parameter = 0; parameter < MODEL_PARAMETERS; parameter++)
        printf("%.9g%c", estimates[parameter], parameter + 1 < MODEL_PARAMETERS ? ' ' : '\n');
}

int main(int count, char **arguments)
{
    const char *part = count == 1 ? "" : arguments[1];
    if (count == 1) {
        while (fread(dataset, sizeof dataset, 1, stdin) == 1) {
            if (estimate(dataset, estimates))
                return refuse();
            print();
        }
    } else if (count == 2 && strcmp(part, "codes") == 0) {
        while (fread(dataset, sizeof dataset, 1, stdin) == 1) {
            if (host_codes(dataset, codes))
                return refuse();
            fwrite(codes, sizeof codes, 1, stdout);
        }
    } else if (count == 2 && strcmp(part, "network") == 0) {
        while (fread(scratch, sizeof codes, 1, stdin) == 1) {
            network(scratch, outputs);
            fwrite(outputs, sizeof outputs, 1, stdout);
        }
    } else if (count == 2 && strcmp(part, "estimates") == 0) {
        while (fread(outputs, sizeof outputs, 1, stdin) == 1) {
            for (int parameter = 0; parameter < MODEL_PARAMETERS; parameter++)
                estimates[parameter] = host_estimate(parameter, outputs[parameter]);
            print();
        }
    } else {
        fprintf(stderr, "usage: estimator [codes|network|estimates]\n");
        return 2;
    }
    return 0;
}
