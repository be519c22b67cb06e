"""Pretrains the small VGG of `problems.py` on half of the grocery classes, and keeps the weights in the user's cache.

    KERAS_BACKEND=tensorflow python benchmarks/pretrain_vgg.py --data FOLDER

No other real pictures are at hand. So the network learns every other class of `grocery`, from all training pictures of
these; the map then trains it on the classes between, which are near, and on `fashion`, which is far. That is a far
weaker start than ImageNet. The same seed gives the same weights, up to the rounding of the machine.
"""

# backends: tensorflow

import argparse
import os
import time
from pathlib import Path

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
from problems import BATCH_SIZE, VGG_WEIGHTS, build_vgg, pictures

from kadence import data as photos

EPOCHS, RATE = 20, 1e-3


def pretrain(root: Path) -> None:
    """Train, say how well, and write the weights of all but the head."""
    train = photos.scan_folder(root / "grocery" / "train")
    test = photos.scan_folder(root / "grocery" / "test", class_names=train.class_names)
    classes = list(range(len(train.class_names)))[::2]
    x, y = pictures(train, len(train.paths), classes)
    keras.utils.set_random_seed(0)
    model, _ = build_vgg(len(classes), weights=None)
    flip = keras.Sequential([keras.Input(model.input_shape[1:]), keras.layers.RandomFlip("horizontal"), model])
    n_steps = EPOCHS * -(-len(x) // BATCH_SIZE)
    schedule = kadence.warmup(kadence.Cosine(RATE, n_steps - n_steps // 10), n_steps // 10)
    flip.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    flip.fit(x.astype("float32"), y, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=2)
    x_test, y_test = pictures(test, 1000, classes)
    accuracy = model_accuracy(flip, x_test, y_test)
    VGG_WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    partial = VGG_WEIGHTS.with_name(f"partial-{VGG_WEIGHTS.name}")
    keras.Model(model.input, model.get_layer("pool4").output).save_weights(partial)
    partial.replace(VGG_WEIGHTS)
    print(f"{len(x)} pictures of {len(classes)} classes, {time.perf_counter() - start:.0f} s,", end=" ")
    print(f"accuracy on test {accuracy:.3f}: {VGG_WEIGHTS}")


def model_accuracy(model: keras.Model, x, y) -> float:
    return float(model.evaluate(x.astype("float32"), y, verbose=0, return_dict=True)["accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("KADENCE_DATA"), help="folder of the data sets")
    options = parser.parse_args()
    if options.data is None:
        print(f"No --data: {VGG_WEIGHTS} is {'there' if VGG_WEIGHTS.exists() else 'not made yet'}.")
    else:
        pretrain(options.data)


if __name__ == "__main__":
    main()
