/* A network on the board: datasets in the file `datasets`, estimates to `estimates`, the depth of the stack to `stack`.
   Built with -DROWS=, -DCOLUMNS= and -DPARAMETERS=. */
#include "board.h"

void network(const float datasets[restrict 1][ROWS][COLUMNS], float estimates[restrict 1][PARAMETERS]);

int main(void)
{
    static float dataset[1][ROWS][COLUMNS], estimates[1][PARAMETERS];
    const int in = board_open("datasets", 0), out = board_open("estimates", 1), depth = board_open("stack", 1);
    if (in < 0 || out < 0 || depth < 0)
        return 1;
#ifdef FLUSH_TO_ZERO
    board_flush_to_zero();
#endif
    while (board_read(in, dataset, sizeof dataset) == sizeof dataset) {
        network(dataset, estimates);
        if (board_write(out, estimates, sizeof estimates) != sizeof estimates)
            return 1;
    }
    const unsigned stack = board_stack();
    if (stack >= board_memory())
        return 1; /* it may have met what lies below it */
    return board_write(depth, &stack, sizeof stack) != sizeof stack;
}
