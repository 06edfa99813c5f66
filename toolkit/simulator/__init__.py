"""A user's simulator, loaded by path and run in worker processes; the same datasets for any number of them.

function.py   the user's file: loaded, called for one block of datasets, and what it returned checked
workers.py    the processes: blocks handed out, taken back in order, and a process that dies reported
"""

from toolkit.simulator.workers import BLOCK, Simulator, open_simulator

__all__ = ["BLOCK", "Simulator", "open_simulator"]
