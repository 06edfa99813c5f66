"""Every file of a model directory beside each other, measured on this machine: size, speed, error, bound.

run.py        the verb: what is measured, in which order
stopwatch.py  what is timed, in the process that runs the file
rounds.py     the files take turns, each in a process of its own
accuracy.py   estimates against the float64 forward pass and against true values
result.py     what was found
machine.py    where
table.py      what the command prints
plot.py       error against speed, as a picture
"""

from toolkit.benchmark.plot import check_plot, plot_benchmark
from toolkit.benchmark.result import Benchmark, FileResult
from toolkit.benchmark.run import benchmark
from toolkit.benchmark.table import print_benchmark

__all__ = ["Benchmark", "FileResult", "benchmark", "check_plot", "plot_benchmark", "print_benchmark"]
