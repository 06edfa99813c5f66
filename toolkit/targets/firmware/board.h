/* What the board gives a program: the files of the machine that emulates or debugs it, and the depth of its stack. */
#ifndef BOARD_H
#define BOARD_H

/* Without this, a number below 2^-126 is kept; with it, the processor makes 0 of it. */
void board_flush_to_zero(void);

/* A file's number, or -1; `name` is relative to the folder of the emulator's process. */
int board_open(const char *name, int to_write);

/* Bytes read or written. */
int board_read(int file, void *bytes, int count);
int board_write(int file, const void *bytes, int count);

/* Bytes of the deepest stack since the start. */
unsigned board_stack(void);

/* Bytes that there are for the stack. */
unsigned board_memory(void);

#endif
