"""What has to be set before Keras is imported."""

import importlib.util
import os
import sys
from pathlib import Path


def choose_backend() -> None:
    """Set KERAS_BACKEND to an installed backend, unless the user chose one or Keras is imported already.

    Keras takes TensorFlow otherwise, and cannot be imported without it, as after `pip install "kadence[jax]"`.

    Raises:
        ImportError: If no backend is installed.
    """
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ or (home / "keras.json").exists():
        return
    installed = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name) is not None]
    if not installed:
        lines = ", ".join(f'pip install "kadence[{name}]"' for name in ("jax", "tensorflow", "torch"))
        raise ImportError(f"Keras needs one of its backends, and none is installed. Install one of them with: {lines}")
    os.environ["KERAS_BACKEND"] = installed[0]
