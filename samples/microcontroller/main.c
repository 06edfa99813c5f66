/* The host side alone, for trying it on a PC: both ends of the network, without the network.

   host codes     < float32 datasets   > int8 codes
   host estimates < int8 codes of the outputs, PARAMETERS for a dataset; prints a line for each dataset */
#include <stdio.h>
#include <string.h>

#include "host.h"
#include "model.h"

int main(int count, char **arguments)
{
    static float dataset[ROWS * COLUMNS];
    static int8_t codes[ROWS * CHANNELS];
    if (count == 2 && strcmp(arguments[1], "codes") == 0) {
        while (fread(dataset, sizeof dataset, 1, stdin) == 1) {
            if (host_codes(dataset, codes)) {
                fprintf(stderr, "a dataset holds NaN\n");
                return 1;
            }
            fwrite(codes, sizeof codes, 1, stdout);
        }
    } else if (count == 2 && strcmp(arguments[1], "estimates") == 0) {
        while (fread(codes, PARAMETERS, 1, stdin) == 1)
            for (int parameter = 0; parameter < PARAMETERS; parameter++)
                printf("%.9g%c", host_estimate(parameter, codes[parameter]), parameter + 1 < PARAMETERS ? ' ' : '\n');
    } else {
        fprintf(stderr, "usage: host codes|estimates\n");
        return 2;
    }
    return 0;
}
