"""How much memory TensorFlow Lite Micro needs for a file: found by trying, where its host interpreter is installed."""

from __future__ import annotations

SMALLEST, LARGEST = 1 << 10, 1 << 24  # bytes
GRANULE = 16  # bytes: arenas are aligned to it


def smallest_arena(content: bytes) -> int | None:
    """Bytes of the smallest arena in which the file runs; None where tflite-micro is not installed or cannot run it.

    Of a 64-bit machine: the structures in it hold pointers, and are smaller on a microcontroller.
    """
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError:
        return None

    def runs_in(arena_bytes: int) -> bool:
        try:
            runtime.Interpreter.from_bytes(content, arena_size=arena_bytes).invoke()
        except RuntimeError:
            return False
        return True

    size = SMALLEST
    while not runs_in(size):
        size *= 2
        if size > LARGEST:
            return None
    too_small = size // 2
    while size - too_small > GRANULE:
        middle = (size + too_small) // 2 // GRANULE * GRANULE
        size, too_small = (middle, too_small) if runs_in(middle) else (size, middle)
    return size
