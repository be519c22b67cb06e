import contextlib
import importlib.util
import sys

import keras
import numpy as np
import pytest
from pictures import save, truncate
from PIL import Image

from kadence import _images, data
from kadence._images import find_images, read_image
from kadence.data import ImageBatches, scan_folder, split_validation

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def photos(root, **counts):
    """`counts` images per class; the red level of image i of the whole folder is 2 * i."""
    level = 0
    for name, count in sorted(counts.items()):
        for i in range(count):
            save(root / name / f"{i:03d}.png", (level, 0, 0))
            level += 2
    return root


# scan_folder


def test_classes_labels_and_paths_are_sorted(tmp_path):
    names = [
        "cat/e.webp",
        "cat/f.gif",
        "cat/g.bmp",
        "zebra/a.PNG",
        "zebra/b.png",
        "Äpfel/nested/c.jpeg",
        "りんご/d.JPG",
    ]
    for name in reversed(names):
        save(tmp_path / name)
    found = scan_folder(tmp_path)
    assert found.class_names == ("cat", "zebra", "Äpfel", "りんご")
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == names
    assert found.labels == (0, 0, 0, 1, 1, 2, 3)
    assert found.skipped == ()
    assert found == scan_folder(str(tmp_path))


def test_hidden_and_other_files_are_ignored(tmp_path):
    photos(tmp_path, a=1, b=1)
    for name in (".cache/x.png", "__MACOSX/a/y.png", "a/.ipynb_checkpoints/z.png", "a/._000.png"):
        save(tmp_path / name)
    for name in (".DS_Store", "a/.DS_Store", "a/notes.txt", "labels.csv"):
        (tmp_path / name).write_text("not an image")
    assert len(scan_folder(tmp_path, strict=True).paths) == 2


def test_class_names_are_stripped_and_composed(tmp_path):
    photos(tmp_path, **{" Cafe\u0301 ": 1, "tea": 1})
    found = scan_folder(tmp_path)
    assert found.class_names == ("Caf\u00e9", "tea")
    assert scan_folder(tmp_path, class_names=["tea", "Caf\u00e9"]).labels == (1, 0)


def test_class_names_that_collide_or_are_not_unicode(tmp_path):
    photos(tmp_path, **{"cat": 1, "cat ": 1})
    with pytest.raises(ValueError, match=r"name of its own.*'cat '.*'cat' is that class too"):
        scan_folder(tmp_path)
    photos(tmp_path / "latin", a=1, b=1)
    try:
        (tmp_path / "latin" / "caf\udce9").mkdir()
    except (OSError, UnicodeError):
        pytest.skip("the file system has Unicode names only")
    with pytest.raises(ValueError, match="Rename it"):
        scan_folder(tmp_path / "latin")


def test_symlinks_are_followed_and_loops_end(tmp_path):
    photos(tmp_path / "elsewhere", b=2)
    photos(tmp_path / "photos", a=1)
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "photos" / "a" / "loop").symlink_to(tmp_path / "photos")
    found = scan_folder(tmp_path / "photos", class_names=["a", "b"])
    assert found.labels.count(1) == 2
    assert len(find_images(tmp_path / "photos")) == 3


def test_broken_files_are_skipped_with_one_warning(tmp_path):
    photos(tmp_path, a=2, b=1)
    truncate(tmp_path / "a" / "cut.jpg")
    (tmp_path / "a" / "empty.png").touch()
    (tmp_path / "b" / "text.jpg").write_text("hello")
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    save(tmp_path / "stray.png")
    with pytest.warns(UserWarning, match="5 image files cannot be used") as caught:
        found = scan_folder(tmp_path)
    assert len(caught) == 1
    reasons = {path.name: reason for path, reason in found.skipped}
    assert "truncated" in reasons["cut.jpg"]
    assert "not a JPEG, PNG" in reasons["empty.png"]
    assert "not a JPEG, PNG" in reasons["text.jpg"]
    assert "No such file" in reasons["gone.jpg"]
    assert reasons["stray.png"] == "not in a class folder"
    assert all(name in str(caught[0].message) for name in reasons)
    assert [path.name for path in found.paths] == ["000.png", "001.png", "000.png"]
    with pytest.raises(ValueError, match=r"only images that can be used.*5 image files.*text\.jpg"):
        scan_folder(tmp_path, strict=True)


def test_the_warning_names_five_and_counts_the_rest(tmp_path):
    photos(tmp_path, a=1, b=1)
    for i in range(7):
        (tmp_path / "a" / f"broken{i}.png").touch()
    with pytest.warns(UserWarning, match=r"7 image files.*broken4\.png.*; and 2 more\.$") as caught:
        scan_folder(tmp_path)
    assert "broken5" not in str(caught[0].message)


@pytest.mark.parametrize("limit", [40, 20])  # Pillow warns above the limit and raises above twice the limit
def test_decompression_bombs_are_skipped(tmp_path, monkeypatch, limit):
    photos(tmp_path, a=1, b=1)
    for path in (tmp_path / "a" / "000.png", tmp_path / "b" / "000.png"):
        save(path, size=(2, 2))
    save(tmp_path / "b" / "bomb.png", size=(8, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.warns(UserWarning, match=r"1 image file cannot be used: .*bomb\.png' \(DecompressionBomb"):
        assert len(scan_folder(tmp_path).paths) == 2


def test_other_warnings_of_pillow_are_not_passed_on(tmp_path):
    photos(tmp_path, a=1, b=1)
    junk = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\xff" * 30
    save(tmp_path / "a" / "exif.jpg", exif=junk)
    assert len(scan_folder(tmp_path, strict=True).paths) == 3


def test_pictures_that_are_not_read_are_told(tmp_path):
    photos(tmp_path, a=1, b=1)
    save(tmp_path / "a" / "jpeg.jpg").rename(tmp_path / "a" / "from_windows.JFIF")
    for name in ("a/phone.HEIC", "b/scan.tif"):
        (tmp_path / name).write_bytes(b"picture")
    with pytest.warns(UserWarning, match=r"2 image files cannot be used: .*phone\.HEIC' \(a format that is not read"):
        found = scan_folder(tmp_path)
    assert [path.name for path in found.paths] == ["000.png", "from_windows.JFIF", "000.png"]
    with pytest.raises(ValueError, match="hold only images that can be used"):
        scan_folder(tmp_path, strict=True)


def test_a_part_of_a_dataset_among_the_classes_is_told(tmp_path):
    with pytest.warns(UserWarning, match="'val' in .* is taken for a class; where that is a part of a dataset, move"):
        assert scan_folder(photos(tmp_path, cat=1, dog=1, val=1)).class_names == ("cat", "dog", "val")


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match=r"existing folder. Received: folder='.*missing'. There is nothing"):
        scan_folder(tmp_path / "missing")
    with pytest.raises(ValueError, match="That is a file"):
        scan_folder(save(tmp_path / "flat" / "x.png"))
    with pytest.raises(ValueError, match="Put its 1 photos into one sub-folder per class"):
        scan_folder(tmp_path / "flat")
    with pytest.raises(TypeError, match="`folder` must be the path of a folder"):
        scan_folder(3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="It holds no sub-folder"):
        scan_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"at least two classes.*The only class is 'cat'"):
        scan_folder(photos(tmp_path / "one", cat=2))
    with pytest.raises(ValueError, match="'test', 'train' are parts of a dataset, not classes"):
        scan_folder(photos(tmp_path / "split", train=1, test=1))


def test_a_class_without_readable_images(tmp_path):
    photos(tmp_path, a=1, b=1)
    (tmp_path / "c").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "broken.jpg").touch()
    with pytest.raises(ValueError, match=r"No readable image in the class folders 'c', 'd'\. 1 .*broken\.jpg"):
        scan_folder(tmp_path)


def test_validation_folder_follows_the_training_classes(tmp_path):
    photos(tmp_path, pear=1, apple=2)
    (tmp_path / "plum").mkdir()
    found = scan_folder(tmp_path, class_names=["plum", "pear", "kiwi", "apple"])
    assert found.class_names == ("plum", "pear", "kiwi", "apple")
    assert found.labels == (3, 3, 1)
    with pytest.raises(ValueError, match=r"'apple' is not one of them. Did you mean 'apples', "):
        scan_folder(tmp_path, class_names=["pear", "apples", "plum"])
    for path in find_images(tmp_path):
        path.unlink()
    with pytest.raises(ValueError, match="No readable image in the class folders 'apple', 'pear', 'plum'"):
        scan_folder(tmp_path, class_names=["plum", "pear", "apple"])
    with pytest.raises(TypeError, match="`class_names` must be a sequence"):
        scan_folder(tmp_path, class_names="plum")


def hide(package, monkeypatch):
    """From here on, `package` cannot be imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])


def test_missing_pillow_is_said_with_the_pip_line(tmp_path, monkeypatch):
    photos(tmp_path, a=1, b=1)
    hide("PIL", monkeypatch)
    for call in (lambda: scan_folder(tmp_path), lambda: read_image(tmp_path / "a" / "000.png", 8)):
        with pytest.raises(ImportError, match=r'pip install "kadence\[cli\]"'):
            call()


def test_the_module_can_be_imported_without_pillow(monkeypatch):
    hide("PIL", monkeypatch)
    spec = importlib.util.spec_from_file_location("fresh_data", data.__file__)
    fresh = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fresh_data", fresh)
    spec.loader.exec_module(fresh)
    assert fresh.ImageFolder is not data.ImageFolder


# split_validation


def test_split_is_stratified_disjoint_and_deterministic(tmp_path):
    folder = scan_folder(photos(tmp_path, a=10, b=20, c=1, d=2))
    train, validation = split_validation(folder, 0.2, seed=3)
    assert [validation.labels.count(label) for label in range(4)] == [2, 4, 0, 1]
    assert set(train.paths) | set(validation.paths) == set(folder.paths)
    assert not set(train.paths) & set(validation.paths)
    assert list(train.paths) == sorted(train.paths)
    for path, label in zip(validation.paths, validation.labels, strict=True):
        assert path.parent.name == validation.class_names[label]
    assert (train, validation) == split_validation(folder, 0.2, seed=3)
    assert validation.paths != split_validation(folder, 0.2, seed=4)[1].paths
    assert train.class_names == validation.class_names == folder.class_names
    assert [split_validation(folder, 0.99, 0)[0].labels.count(label) for label in range(4)] == [1, 1, 1, 1]


def test_split_errors(tmp_path):
    folder = scan_folder(photos(tmp_path, a=1, b=1))
    with pytest.raises(ValueError, match="nothing is left for validation"):
        split_validation(folder, 0.5, 0)
    for fraction in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"`fraction` must be a number > 0 and < 1"):
            split_validation(folder, fraction, 0)
    with pytest.raises(TypeError, match="`fraction`"):
        split_validation(folder, "0.2", 0)


# ImageBatches


@pytest.fixture
def folder(tmp_path):
    return scan_folder(photos(tmp_path / "photos", a=6, b=5))


def seen_order(batches):
    """Positions in the folder of all images, in the order of the batches."""
    return [int(level) // 2 for pixels, _ in batches for level in pixels[:, 0, 0, 0]]


def epoch_order(seed, epoch, n_images=11):
    return np.random.default_rng([seed, epoch]).permutation(n_images).tolist()


@pytest.mark.parametrize("limit", [0, 2**40])
def test_batches_in_memory_and_on_the_fly(folder, limit):
    batches = ImageBatches(folder, 4, 4, shuffle=False, memory_limit_bytes=limit)
    assert len(batches) == 3
    pixels, labels = batches[2]
    assert pixels.shape == (3, 4, 4, 3)
    assert pixels.dtype == np.float32
    assert labels.dtype == np.int32
    assert labels.tolist() == [1, 1, 1]
    assert seen_order(batches) == list(range(11))


def test_every_epoch_has_its_own_order(folder):
    batches = ImageBatches(folder, 4, 4, shuffle=True, seed=5)
    for epoch in (0, 3, 1, 3):
        batches.set_epoch(epoch)
        assert seen_order(batches) == epoch_order(5, epoch)
        labels = np.concatenate([labels for _, labels in batches])
        assert labels.tolist() == [folder.labels[i] for i in epoch_order(5, epoch)]
    assert epoch_order(5, 0) != epoch_order(5, 1) != epoch_order(6, 1)


class Recorder(keras.Model):
    """A model that writes down the images of each training step."""

    def __init__(self):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(2)
        self.seen = []
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)

    def call(self, x):
        return self.dense(self.flatten(x))

    def train_step(self, *arguments):
        pixels = keras.ops.convert_to_numpy(arguments[-1][0])
        self.seen += [int(level) // 2 for level in pixels[:, 0, 0, 0]]
        return super().train_step(*arguments)


@pytest.mark.parametrize("options", [{}, {"initial_epoch": 2}, {"steps_per_epoch": 3}])
@pytest.mark.parametrize("limit", [0, 2**40])
def test_fit_sees_the_order_of_its_epoch(folder, options, limit):
    model, batches = Recorder(), ImageBatches(folder, 4, 4, shuffle=True, seed=1, memory_limit_bytes=limit)
    model.fit(batches, epochs=4, shuffle=False, verbose=0, callbacks=[batches.follow_epochs()], **options)
    epochs = range(options.get("initial_epoch", 0), 4)
    assert model.seen == [position for epoch in epochs for position in epoch_order(1, epoch)]


def test_a_resumed_run_sees_the_same_order(folder, tmp_path):
    def fit(*callbacks):
        model, batches = Recorder(), ImageBatches(folder, 4, 4, shuffle=True, seed=1)
        model(np.zeros((1, 4, 4, 3), np.float32))  # BackupAndRestore wants a built model
        callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup"), batches.follow_epochs(), *callbacks]
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(batches, validation_data=validation, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
        return model.seen

    def interrupt(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    validation = ImageBatches(folder, 4, 4, shuffle=False)
    first = fit(keras.callbacks.LambdaCallback(on_epoch_begin=interrupt))
    second = fit()
    assert first == epoch_order(1, 0) + epoch_order(1, 1)
    assert second == epoch_order(1, 2) + epoch_order(1, 3)


def test_compiled_fit_evaluate_and_predict(folder):
    scale = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(1 / 255))
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D(), scale])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    batches = ImageBatches(folder, 4, 4, shuffle=False)
    model.fit(batches, epochs=2, verbose=0, shuffle=False, callbacks=[batches.follow_epochs()])
    assert set(model.evaluate(batches, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    np.testing.assert_allclose(model.predict(batches, verbose=0)[:, 0], np.arange(11) * 2 / 255, atol=1e-6)


def test_many_threads_may_read_batches(folder):
    batches = ImageBatches(folder, 4, 2, shuffle=False, memory_limit_bytes=0)
    results = _images._in_threads(lambda i: batches[i % 6][0][:, 0, 0, 0], range(30))
    for i, levels in enumerate(results):
        assert levels.tolist() == [2 * k for k in range(11)][(i % 6) * 2 : (i % 6) * 2 + 2]


def test_a_file_that_vanishes_is_named(folder):
    streamed = ImageBatches(folder, 4, 4, shuffle=False, memory_limit_bytes=0)
    folder.paths[5].unlink()
    with pytest.raises(ValueError, match=r"`path` must be an image that can be read.*a/005\.png'.*No such file"):
        streamed[1]
    with pytest.raises(ValueError, match=r"a/005\.png"):
        ImageBatches(folder, 4, 4, shuffle=False)
    with pytest.raises(Exception, match=r"a/005\.png"):  # TensorFlow wraps the error, with its text
        Recorder().fit(streamed, verbose=0, shuffle=False)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_filled_up_to_a_multiple_and_the_fillers_weigh_nothing(folder, shuffle):
    n, size = len(folder.paths), 4
    assert n % size, "the last batch has to be filled"
    plain = ImageBatches(folder, 8, size, shuffle=shuffle)
    filled = ImageBatches(folder, 8, size, shuffle=shuffle, multiple_of=size)
    assert len(filled) == len(plain)
    weights = []
    for index in range(len(plain)):
        (x, y), (pixels, labels, weight) = plain[index], filled[index]
        assert len(pixels) == len(labels) == len(weight) == size
        np.testing.assert_array_equal(pixels[: len(x)], x)
        np.testing.assert_array_equal(labels[: len(y)], y)
        assert weight.dtype == np.float32
        assert (weight[: len(y)] > 0).all()
        assert (weight[len(y) :] == 0).all()
        if shuffle:  # the mean over each batch
            assert weight.mean() == pytest.approx(1)
        weights.extend(weight)
    if not shuffle:  # the mean over all
        assert np.mean(weights) == pytest.approx(1)
        assert len(set(weights)) == 2
    np.testing.assert_array_equal(filled[len(plain) - 1][0][len(x) :], plain[0][0][: size - len(x)])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"image_size": 0}, "image_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"memory_limit_bytes": -1}, "memory_limit_bytes"),
        ({"multiple_of": 0}, "multiple_of"),
    ],
)
def test_bad_arguments_of_batches(folder, arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer"):
        ImageBatches(**({"folder": folder, "image_size": 4, "batch_size": 4, "shuffle": True} | arguments))


def test_bad_epoch(folder):
    with pytest.raises(ValueError, match="`epoch` must be an integer >= 0, in epochs"):
        ImageBatches(folder, 4, 4, shuffle=True).set_epoch(-1)


def test_the_batch_size_is_a_multiple_of_what_its_batches_are(folder):
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of 3, in images"):
        ImageBatches(folder, 4, 4, shuffle=True, multiple_of=3)
