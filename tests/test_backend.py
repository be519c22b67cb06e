import json
import os
import subprocess
import sys
import types

import pytest

from kadence import _backend

pytestmark = pytest.mark.once

NAMES = ("tensorflow", "torch", "jax")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No choice made, Keras not imported, an empty home; returns a function that says what is installed."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras")

    def only(*installed):
        def find_spec(name, package=None):
            return name if name in installed else None

        monkeypatch.setattr(_backend.importlib.util, "find_spec", find_spec)

    return only


def chosen():
    _backend.choose_backend()
    return os.environ.get("KERAS_BACKEND")


def test_versions_of_packages_under_another_name(monkeypatch):
    """tensorflow-cpu is imported as tensorflow, which has no metadata then."""
    known = types.ModuleType("elsewhere")
    known.__version__ = "1.2"
    monkeypatch.setitem(sys.modules, "elsewhere", known)
    assert _backend.version_of("elsewhere") == "1.2"
    assert _backend.version_of("nowhere") == "unknown"
    assert _backend.version_of("pytest") == pytest.__version__


def write_config(home, backend):
    (home / ".keras").mkdir()
    (home / ".keras" / "keras.json").write_text(json.dumps({"floatx": "float32", "backend": backend}), encoding="utf-8")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [(("jax",), "jax"), (("torch",), "torch"), (("tensorflow",), "tensorflow"), (("jax", "torch"), "torch")],
)
def test_an_installed_backend_is_taken(fresh, installed, expected):
    fresh(*installed)
    assert chosen() == expected


def test_tensorflow_stays_keras_s_default(fresh):
    fresh(*NAMES)
    assert chosen() == "tensorflow"


def test_the_user_s_choice_stands(fresh, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    fresh(*NAMES)
    assert chosen() == "jax"


def test_an_empty_choice_is_none(fresh, monkeypatch):
    # Keras skips an empty KERAS_BACKEND and goes on to TensorFlow.
    monkeypatch.setenv("KERAS_BACKEND", "")
    fresh("jax")
    assert chosen() == "jax"


def test_nothing_is_set_once_keras_is_imported(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", object())
    fresh("jax")
    assert chosen() is None


@pytest.mark.parametrize("backend", NAMES)
def test_a_config_that_names_an_installed_backend_stands(fresh, tmp_path, backend):
    write_config(tmp_path, backend)
    fresh(*NAMES)
    assert chosen() in (None, backend)


def test_keras_home_is_respected(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keras.json").write_text('{"backend": "jax"}', encoding="utf-8")
    fresh(*NAMES)
    assert chosen() in (None, "jax")


def test_the_config_that_keras_wrote_itself_is_no_choice(fresh, tmp_path):
    # Keras writes keras.json at its first import, before it looks at KERAS_BACKEND: always with "tensorflow" in it.
    write_config(tmp_path, "tensorflow")
    fresh("jax")
    assert chosen() == "jax"


def test_a_spoilt_config_is_skipped_as_by_keras(fresh, tmp_path):
    write_config(tmp_path, "tensorflow")
    (tmp_path / ".keras" / "keras.json").write_text("{", encoding="utf-8")
    fresh("jax")
    assert chosen() == "jax"


def test_no_home_is_no_problem(fresh, monkeypatch):
    # A container that runs as a user without a name: Keras goes on with /tmp.
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_backend.Path, "home", home)
    fresh("jax")
    assert chosen() == "jax"


def test_no_backend_is_a_clear_error(fresh):
    fresh()
    with pytest.raises(ImportError) as caught:
        chosen()
    for name in NAMES:
        assert f'pip install "kadence[{name}]"' in str(caught.value)


def test_with_jax_alone_kadence_is_imported_more_than_once(tmp_path):
    code = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find_spec(name, package)
sys.modules["tensorflow"] = None  # as if neither were installed
import kadence, keras
print(keras.backend.backend())
"""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("KERAS")}
    variables["HOME"] = str(tmp_path)
    for time in ("first", "second"):
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{time} import: {done.stderr[-800:]}"
        assert done.stdout.split() == ["jax"]
