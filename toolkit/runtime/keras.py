"""Keras: .keras files, the network as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import MissingExtra
from toolkit.keras_zip import check_keras_file
from toolkit.runtime.batches import in_batches

if TYPE_CHECKING:
    from toolkit.spec import Predict

KERAS_BATCH = 256  # Keras spends 0.5 ms a call on itself


def load_keras(path: Path) -> Predict:
    from toolkit.model import import_tensorflow

    try:
        import_tensorflow()
    except MissingExtra as error:
        raise MissingExtra("load of a .keras file", "train", "TensorFlow") from error
    import keras

    check_keras_file(path)
    network: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    _, rows, columns = network.input_shape
    return in_batches(path, network.predict_on_batch, KERAS_BATCH, (rows, columns), network.output_shape[-1])
