"""The well-known 2019 article on differential learning rates and SGDR in Keras, the Kadence way.

    python examples/article.py --out article

The article fine-tunes a ResNet50 with three learning rates: lowest near the input, where filters are general, highest
in the new head. All three follow a cosine that restarts, each cycle twice as long as the one before. Here the network
starts from random weights and sees a few generated pictures, so that the whole story takes about a minute.
"""

import argparse
from pathlib import Path

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

N_CLASSES = 4
IMAGE_SIZE = 32
BATCH_SIZE = 8
STEPS_PER_EPOCH = 4


# 1. The model. For real work, take `weights="imagenet"`, pictures of 224 x 224 pixels and
#    `kadence.freeze_batch_norm(model)`, as the statistics of ImageNet suit few pictures better than their own.


def build_model(backbone: keras.Model | None = None) -> keras.Model:
    """A backbone, by default ResNet50, with a new head that begins at the layer `fc_start`."""
    if backbone is None:
        backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    x = keras.layers.Dense(64, name="fc_start")(x)
    x = keras.layers.BatchNormalization(name="fc_bn")(x)
    outputs = keras.layers.Dense(N_CLASSES, name="fc_end")(keras.layers.ReLU(name="fc_relu")(x))
    return keras.Model(backbone.input, outputs, name="article")


# 2. Three groups of layers, cut where a new group begins, and the peak rate of each.

SPLIT = ["conv4_block1_1_conv", "fc_start"]
RATES = [1e-7, 1e-4, 1e-2]


# 3. The three schedules of the article, each with the number of steps to draw.


def schedules() -> dict[str, tuple[kadence.Schedule, int]]:
    return {
        "one_cosine": (kadence.Cosine(1e-2, n_steps=200), 200),
        "equal_cycles": (kadence.WarmRestarts(1e-2, first_cycle_steps=100), 3 * 100),
        "doubling_cycles": (kadence.WarmRestarts(1e-2, first_cycle_steps=100, cycle_mult=2), 100 + 200 + 400),
    }


# 4. One optimizer for all groups. The first cycle lasts one epoch; a schedule counts optimizer steps.


def build_optimizer(model: keras.Model) -> kadence.DiscriminativeOptimizer:
    first_cycle_steps = kadence.epochs_to_steps(1, STEPS_PER_EPOCH)
    schedule = kadence.WarmRestarts(max(RATES), first_cycle_steps, cycle_mult=2)
    return kadence.DiscriminativeOptimizer(
        keras.optimizers.Adam(schedule), kadence.split(model, at=SPLIT), learning_rates=RATES
    )


# 5. `compile` and `fit` stay as they are. The recorder keeps what every step was trained with.


def generate_pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in 0..1, (pictures, rows, columns, 3), and their class: which quarter is bright."""
    rng = np.random.default_rng(seed)
    half, labels = IMAGE_SIZE // 2, rng.integers(N_CLASSES, size=BATCH_SIZE * STEPS_PER_EPOCH)
    images = rng.uniform(0.0, 0.5, size=(len(labels), IMAGE_SIZE, IMAGE_SIZE, 3)).astype("float32")
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 0.5
    return images, labels


def train(model: keras.Model, epochs: int = 1 + 2 + 4) -> kadence.RateRecord:
    """Train a compiled model on generated pictures; 7 epochs end with the third cycle."""
    images, labels = generate_pictures()
    recorder = kadence.RateRecorder()
    model.fit(images, labels, batch_size=BATCH_SIZE, epochs=epochs, shuffle=False, verbose=0, callbacks=[recorder])
    return recorder.record


def main(out: Path) -> None:
    keras.utils.set_random_seed(0)
    model = build_model()
    optimizer = build_optimizer(model)
    print(optimizer.groups.with_rates(RATES), flush=True)

    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    record = train(model)
    first, *_, last = record.losses.reshape(-1, STEPS_PER_EPOCH).mean(axis=1)
    print(f"\nloss in the first epoch {first:.3f}, in the last {last:.3f}\n")

    # 6. The pictures: the article's three, and the rate of every group in the run above.
    out.mkdir(parents=True, exist_ok=True)
    pictures = {name: kadence.plot_schedule(schedule, n_steps) for name, (schedule, n_steps) in schedules().items()}
    pictures["rates_of_the_run"] = kadence.plot_rates(record)
    for name, axes in pictures.items():
        axes.set_title(name.replace("_", " "))
        axes.figure.savefig(out / f"{name}.png")
        print(out / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/article"), help="folder for the pictures")
    main(parser.parse_args().out)
