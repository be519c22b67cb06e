"""What has to be set before Keras is imported."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path


def choose_backend() -> None:
    """Set KERAS_BACKEND to an installed backend, unless the user chose one or Keras is imported already.

    Keras takes TensorFlow otherwise, and cannot be imported without it, as after `pip install "kadence[jax]"`.

    Raises:
        ImportError: If no backend is installed.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND") or _installed(_configured()):
        return
    installed = [name for name in ("tensorflow", "torch", "jax") if _installed(name)]
    if not installed:
        lines = ", ".join(f'pip install "kadence[{name}]"' for name in ("jax", "tensorflow", "torch"))
        raise ImportError(f"Keras needs one of its backends, and none is installed. Install one of them with: {lines}")
    os.environ["KERAS_BACKEND"] = installed[0]


def versions() -> dict[str, str]:
    """What a training depends on: "backend", and the version of each package and of Python, by name."""
    import keras

    backend = keras.backend.backend()
    packages = {name: version_of(name) for name in ("kadence", "keras", "numpy", backend)}
    return {**packages, "backend": backend, "python": platform.python_version()}


def version_of(package: str) -> str:
    """The version of an imported package; one that is installed under another name, as tensorflow-cpu is, says its own.

    Args:
        package: Name that it is imported by.

    Returns:
        The version, or "unknown".
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _installed(backend: str) -> bool:
    return bool(backend) and importlib.util.find_spec(backend) is not None


def _configured() -> str:
    """The backend in keras.json; Keras writes TensorFlow there by itself, whether it is installed or not."""
    try:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return str(json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return ""
