"""Any model file behind one callable.

loading.py      which runtime runs a file, and the one function that loads it
batches.py      an engine that takes exactly one batch -> a function of any number of datasets
float16.py      how hardware computes a file that works in half precision, emulated in NumPy
litert.py  onnxruntime.py  openvino.py  keras.py      one engine each
"""

from toolkit.runtime.batches import BATCH
from toolkit.runtime.loading import FLOAT16, KERNELS, RUNTIMES, kernels_to_judge, load, runtime_for

__all__ = ["BATCH", "FLOAT16", "KERNELS", "RUNTIMES", "kernels_to_judge", "load", "runtime_for"]
