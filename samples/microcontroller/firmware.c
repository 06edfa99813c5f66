/* On a board, or on one that QEMU emulates: float32 datasets are read from the file `datasets` of the machine that emulates
   or debugs it. Of each, `outputs` gets the int8 codes, `estimates` the float32 numbers, `ticks` two counts of SysTick:
   of all, and of the network alone (cycles on a board; 40 instructions each under `qemu-system-arm -icount shift=0`).
   `stack` gets the bytes of the deepest stack. */
#include <stdint.h>

#include "board.h"
#include "host.h"
#include "model.integer.h"
#include "network.h"

#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current value: 24 bits, counts down */

static uint32_t since(uint32_t begin) { return (begin - SYSTICK[2]) & 0xFFFFFF; }

int main(void)
{
    static float dataset[MODEL_ROWS * MODEL_COLUMNS];
    static int8_t scratch[MODEL_SCRATCH_BYTES];
    int8_t outputs[MODEL_PARAMETERS];
    float estimates[MODEL_PARAMETERS];
    const int in = board_open("datasets", 0), codes = board_open("outputs", 1), out = board_open("estimates", 1);
    const int time = board_open("ticks", 1), depth = board_open("stack", 1);
    if (in < 0 || codes < 0 || out < 0 || time < 0 || depth < 0)
        return 1;
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5; /* on, at the processor's clock, no interrupt */
    while (board_read(in, dataset, sizeof dataset) == sizeof dataset) {
        const uint32_t begin = SYSTICK[2];
        if (host_codes(dataset, scratch))
            return 1;
        const uint32_t between = SYSTICK[2];
        network(scratch, outputs);
        uint32_t ticks[] = {0, since(between)};
        for (int parameter = 0; parameter < MODEL_PARAMETERS; parameter++)
            estimates[parameter] = host_estimate(parameter, outputs[parameter]);
        ticks[0] = since(begin);
        board_write(codes, outputs, sizeof outputs);
        board_write(out, estimates, sizeof estimates);
        board_write(time, ticks, sizeof ticks);
    }
    const uint32_t stack = board_stack();
    return board_write(depth, &stack, sizeof stack) != sizeof stack;
}
