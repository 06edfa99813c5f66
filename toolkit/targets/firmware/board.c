/* Start-up and semihosting for Cortex-M, with nothing from a vendor: what `main` needs, and no more.

   Semihosting: a breakpoint that the emulator or debugger answers, the operation in r0 and its arguments in r1
   (Arm, "Semihosting for AArch32 and AArch64"). */
#include "board.h"

#include <stdint.h>
#include <string.h>

enum { OPEN = 0x01, WRITE = 0x05, READ = 0x06, EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };                /* modes of OPEN: rb, wb */
enum { RUN_TIME_ERROR = 0x20023, APPLICATION_EXIT = 0x20026 }; /* reasons of EXIT */
#define PAINT 0xA5A5A5A5u
#define MPU_CONTROL (*(volatile uint32_t *)0xE000ED94)
#define MPU_REGION (*(volatile uint32_t (*)[3])0xE000ED98) /* number, base, size and rights */

extern uint32_t stack_top, data_stored, data_begin, data_end, bss_begin, bss_end; /* of the linker script */
int main(void);

static int semihosting(int operation, const void *arguments)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void leave(int failed)
{
    semihosting(EXIT, (const void *)(failed ? RUN_TIME_ERROR : APPLICATION_EXIT));
    for (;;)
        ;
}

int board_open(const char *name, int to_write)
{
    const uint32_t arguments[] = {(uint32_t)name, to_write ? WRITE_BINARY : READ_BINARY, strlen(name)};
    return semihosting(OPEN, arguments);
}

int board_read(int file, void *bytes, int count)
{
    const uint32_t arguments[] = {(uint32_t)file, (uint32_t)bytes, (uint32_t)count};
    return count - semihosting(READ, arguments); /* it answers with what is missing */
}

int board_write(int file, const void *bytes, int count)
{
    const uint32_t arguments[] = {(uint32_t)file, (uint32_t)bytes, (uint32_t)count};
    return count - semihosting(WRITE, arguments);
}

void board_flush_to_zero(void)
{
    uint32_t status;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(status));
    __asm__ volatile("vmsr fpscr, %0" : : "r"(status | 1u << 24));
}

unsigned board_memory(void) { return (unsigned)((uintptr_t)&stack_top - (uintptr_t)&bss_end); }

unsigned board_stack(void)
{
    const uint32_t *painted = &bss_end;
    while (painted < &stack_top && *painted == PAINT)
        painted++;
    return (unsigned)((uintptr_t)&stack_top - (uintptr_t)painted);
}

__attribute__((used, noreturn)) static void begin(void)
{
    const uint32_t *stored = &data_stored;
    for (uint32_t *word = &data_begin; word < &data_end;)
        *word++ = *stored++;
    for (uint32_t *word = &bss_begin; word < &bss_end;)
        *word++ = 0;
    volatile uint32_t *frame = (volatile uint32_t *)__builtin_frame_address(0);
    for (volatile uint32_t *word = &bss_end; word < frame - 64; word++) /* below what this function itself uses */
        *word = PAINT;
    /* No rights from 0x10000000 to 0x1FFFFFFF, below the memory: QEMU's boards forget what is written there, and a
       stack that ends there would go unnoticed. */
    MPU_REGION[0] = 0;
    MPU_REGION[1] = 0x10000000;
    MPU_REGION[2] = 1u << 28 | 27u << 1 | 1; /* no code; 2^28 bytes; on */
    MPU_CONTROL = 5;                         /* on; elsewhere the rights are the usual ones */
    __asm__ volatile("dsb \n isb");
    leave(main());
    for (;;)
        ;
}

/* In assembly: C may use the floating-point unit, which is switched off until here. */
__attribute__((naked)) void reset(void)
{
    __asm__ volatile("ldr r0, =0xE000ED88 \n" /* CPACR: who may use it */
                     "ldr r1, [r0] \n"
                     "orr r1, r1, #0xF00000 \n"
                     "str r1, [r0] \n"
                     "dsb \n"
                     "isb \n"
                     "b begin \n");
}

static void fault(void) { leave(1); } /* among others, a stack that has left the memory */

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {&stack_top, reset, fault, fault,
                                                                                fault, fault, fault};
