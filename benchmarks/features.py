"""What training a head on stored features costs, in forward passes over the data.

    KERAS_BACKEND=jax python benchmarks/features.py

EfficientNet-Lite0 with a new head, photos of noise. The cost of `cache_features` and 5 epochs on the features is
divided by that of one forward pass of the whole model over the same photos (`predict`), in the same round. The first
round, in which everything is compiled, is shown by itself. After it the pass is compiled already, while the two parts
of the cut model are made and compiled anew in every round: the fewer the photos, the more that weighs. Beside it stand
5 epochs of the head with the frozen backbone run in each of them.
"""

# backends: jax tensorflow torch

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

TARGET = 1.3
EPOCHS = 5
BATCH = 32


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def lite0_model(image_size: int) -> tuple[keras.Model, kadence.LayerGroups]:
    keras.utils.set_random_seed(0)
    backbone = kadence.backbones.efficientnet_lite0(image_size=image_size, weights=None)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(10, activation="softmax", name="head")(x))
    groups = kadence.split(model, at=["block5_0_expand_conv", "pool"])
    kadence.freeze_to(model, "group_3", groups)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model, groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few photos and rounds, to see that it runs")
    parser.add_argument("--photos", type=int, help="number of photos; 512")
    parser.add_argument("--image-size", type=int, default=64, help="side of the photos in pixels")
    parser.add_argument("--rounds", type=int, help="rounds after the first; 5")
    parser.add_argument("--brief", action="store_true", help="without the frozen backbone in every epoch")
    arguments = parser.parse_args()
    n = arguments.photos or (64 if arguments.quick else 512)
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (n, arguments.image_size, arguments.image_size, 3)).astype("float32")
    labels = rng.integers(10, size=n)
    model, groups = lite0_model(arguments.image_size)
    print(f"{EPOCHS} epochs of a head on {n} photos of {arguments.image_size} px, batches of {BATCH},", end=" ")
    print(f"{keras.backend.backend()}, Keras {keras.__version__}, Python {platform.python_version()},", end=" ")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")

    cached = None

    def forward() -> None:
        model.predict(photos, batch_size=BATCH, verbose=0)

    def on_features() -> None:
        nonlocal cached
        cached = kadence.cache_features(model, groups[-1], photos, labels, batch_size=BATCH)
        cached.model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        cached.model.fit(cached.batches(BATCH), epochs=EPOCHS, verbose=0, shuffle=False)

    def on_photos() -> None:
        model.fit(photos, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=False)

    times = [(seconds(forward), seconds(on_features)) for _ in range(rounds + 1)]
    for name, part in (("with everything that is compiled, once", times[:1]), ("after that, median", times[1:])):
        one, stored = (statistics.median(column) for column in zip(*part, strict=True))
        ratio = statistics.median(b / a for a, b in part)
        print(f"{name}: a forward pass {one:.2f} s; on features {stored:.2f} s, {ratio:.2f} passes", flush=True)
    if not arguments.brief:
        whole = seconds(on_photos)
        print(f"with the backbone in every epoch, once: {whole:.2f} s, {whole / one:.2f} passes")
    ratios = [b / a for a, b in times[1:]]
    got = statistics.median(ratios)
    print(f"target: at most {TARGET} forward passes; got {got:.2f} ({min(ratios):.2f}..{max(ratios):.2f}):", end=" ")
    print("met" if got <= TARGET else "missed", flush=True)


if __name__ == "__main__":
    main()
