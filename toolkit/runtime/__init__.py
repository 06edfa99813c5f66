"""Any model file behind one callable.

loading.py      which runtime runs a file, and the one function that loads it
batches.py      an engine that takes exactly one batch -> a function of any number of datasets
litert.py  onnxruntime.py  openvino.py  keras.py      one engine each
"""

from toolkit.runtime.batches import BATCH
from toolkit.runtime.loading import KERNELS, RUNTIMES, kernels_to_judge, load, runtime_for

__all__ = ["BATCH", "KERNELS", "RUNTIMES", "kernels_to_judge", "load", "runtime_for"]
