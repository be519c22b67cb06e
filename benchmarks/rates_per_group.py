"""What rates per layer group give, near ImageNet and far from it, beside one rate for all and fixed ladders.

    KERAS_BACKEND=tensorflow python benchmarks/rates_per_group.py --data FOLDER

FOLDER holds two data sets, `grocery` and `fashion`, each with `train` and `test` folders of class folders; without it,
the results that were measured before are printed. All train EfficientNet-Lite0 at 64 px, BatchNorm frozen, for 8
epochs on the same 640 pictures, with Adam, a warm-up of a tenth and a cosine, without augmentation. A fixed ladder gets
the best rate of a grid, which grows where the best is its first or last, judged with one seed on pictures that are
neither trained nor tested on; it is then trained with five other seeds and judged on 1,000 test pictures. The rates
that Kadence finds, by a range test for each group and by a test of the three ladders, are found with the seed of the
grid, and trained with the same five. Results are appended to a CSV as they come, and not measured again.
"""

# backends: tensorflow

import argparse
import csv
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

from kadence import data as photos
from kadence.classifier import build_classifier
from kadence.settings import FineTuneSettings

RESULTS = Path(__file__).with_name("results") / "rates_per_group.csv"
COLUMNS = ("data", "way", "base", "seed", "split", "accuracy", "loss", "seconds", "rates")
IMAGE_SIZE, BATCH_SIZE, EPOCHS = 64, 32, 8
N_TRAIN, N_VALIDATION, N_TEST = 640, 250, 1000
#: The grid of base rates, of which the middle ones are tried first.
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FIRST_TRIED = slice(2, 6)
SEARCH_SEED, SEEDS = 100, range(5)
#: Way -> factor on the base rate of each group, from the input to the head.
LADDERS = {
    "one rate": (1.0, 1.0, 1.0),
    "1/2.6 per group": (1 / 2.6**2, 1 / 2.6, 1.0),
    "100x spread": (0.01, 0.1, 1.0),
}

#: How a test of Kadence finds the rates -> what finds them.
FOUND = {
    "range test per group": lambda model, sets: (
        kadence.lr_range_test(
            model, *sets["train"], batch_size=BATCH_SIZE, lr_min=1e-6, lr_max=1.0, per_group=True, seed=SEARCH_SEED
        )
        .suggest()
        .learning_rates(fallback=model.optimizer.learning_rates)
    ),
    "ladder test": lambda model, sets: kadence.lr_ladder_test(
        model,
        *sets["train"],
        validation_data=sets["validation"],
        rates=RATES[3:7],
        ladders=LADDERS,
        batch_size=BATCH_SIZE,
        n_steps=80,
        seed=SEARCH_SEED,
    ).learning_rates(),
}

Arrays = tuple[np.ndarray, np.ndarray]


def per_class(folder: photos.ImageFolder, n_images: int, start: int, seed: int) -> Arrays:
    """About `n_images` pictures, equally many of each class where there are enough, after skipping `start` as alike."""
    rng = np.random.default_rng(seed)
    labels, n_classes = np.asarray(folder.labels), len(folder.class_names)
    skip, take = -(-start // n_classes), -(-n_images // n_classes)
    chosen = []
    for label in range(n_classes):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen += members[skip : skip + take].tolist()
    batches = photos.ImageBatches(folder.select(chosen), IMAGE_SIZE, len(chosen), shuffle=False)
    return batches[0]


def load(folder: Path) -> dict[str, Arrays]:
    train = photos.scan_folder(folder / "train")
    test = photos.scan_folder(folder / "test", class_names=train.class_names)
    return {
        "train": per_class(train, N_TRAIN, 0, seed=0),
        "validation": per_class(train, N_VALIDATION, N_TRAIN, seed=0),
        "test": per_class(test, N_TEST, 0, seed=0),
    }


def new_model(n_classes: int, seed: int) -> tuple[keras.Model, kadence.LayerGroups]:
    keras.utils.set_random_seed(seed)
    settings = FineTuneSettings(photos="", image_size=IMAGE_SIZE, augment=False, rates=(1.0, 1.0, 1.0))
    return build_classifier(settings, n_classes)


def train(sets: dict[str, Arrays], rates: Sequence[float], seed: int, split: str) -> dict[str, float]:
    """Accuracy and loss on a split after training with a peak rate per group."""
    model, groups = new_model(int(sets["train"][1].max()) + 1, seed)
    x, y = sets["train"]
    n_steps = EPOCHS * -(-len(x) // BATCH_SIZE)
    rise = n_steps // 10
    schedule = kadence.warmup(kadence.Cosine(max(rates), n_steps - rise), rise)
    optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.Adam(schedule), groups, learning_rates=rates)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    seconds = time.perf_counter() - start
    loss, accuracy = model.evaluate(*sets[split], batch_size=250, verbose=0)
    keras.backend.clear_session()
    return {"accuracy": accuracy, "loss": loss, "seconds": seconds}


class Store:
    """The rows measured so far, in a CSV that grows."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[tuple[str, ...], dict[str, str]] = {}
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self.rows[self.key(row)] = row

    @staticmethod
    def key(row: dict[str, str]) -> tuple[str, ...]:
        """What tells a row from the others."""
        return tuple(row[name] for name in ("data", "way", "base", "seed", "split"))

    def add(self, row: dict[str, str]) -> None:
        """Keep a row, and write it."""
        self.rows[self.key(row)] = row
        self.path.parent.mkdir(exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(",".join(row.values()), flush=True)

    def accuracies(self, **wanted: str) -> list[float]:
        """Accuracies of the rows with these values, by seed."""
        found = [row for row in self.rows.values() if all(row[name] == value for name, value in wanted.items())]
        return [float(row["accuracy"]) for row in sorted(found, key=lambda row: int(row["seed"]))]

    def best_base(self, data: str, way: str) -> float:
        """The base rate with the best accuracy in the search."""
        tried = [
            row for row in self.rows.values() if (row["data"], row["way"], row["split"]) == (data, way, "validation")
        ]
        return float(max(tried, key=lambda row: (float(row["accuracy"]), -float(row["loss"])))["base"])


def measure(store: Store, data: str, sets: dict[str, Arrays], way: str, base: float, seed: int, split: str) -> None:
    """A row for a fixed ladder at a base rate."""
    key = {"data": data, "way": way, "base": f"{base:g}", "seed": str(seed), "split": split}
    if store.key(key) not in store.rows:
        add(store, key, sets, [base * factor for factor in LADDERS[way]])


def add(store: Store, key: dict[str, str], sets: dict[str, Arrays], rates: Sequence[float]) -> None:
    result = train(sets, rates, int(key["seed"]), key["split"])
    figures = {name: f"{value:.4f}" for name, value in result.items()}
    store.add({**key, **figures, "rates": " ".join(f"{rate:.3g}" for rate in rates)})


def measure_found(store: Store, data: str, sets: dict[str, Arrays], way: str, seed: int) -> None:
    """A row for rates that are found; how they were found is a row too, with its seconds."""
    key = {"data": data, "way": way, "base": "", "seed": str(seed), "split": "test"}
    if store.key(key) in store.rows:
        return
    search = {**key, "seed": str(SEARCH_SEED), "split": "search"}
    if store.key(search) not in store.rows:
        model, groups = new_model(int(sets["train"][1].max()) + 1, SEARCH_SEED)
        best = store.best_base(data, "one rate")
        optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.Adam(best), groups, lr_multipliers=[1.0, 1.0, 1.0])
        model.compile(optimizer, loss="sparse_categorical_crossentropy")
        start = time.perf_counter()
        rates = FOUND[way](model, sets)
        row = {"accuracy": "", "loss": "", "seconds": f"{time.perf_counter() - start:.4f}"}
        store.add({**search, **row, "rates": " ".join(f"{rate:.3g}" for rate in rates)})
    add(store, key, sets, [float(rate) for rate in store.rows[store.key(search)]["rates"].split()])


def search(store: Store, data: str, sets: dict[str, Arrays], way: str) -> None:
    """Try the middle of the grid, and its neighbour as long as the best is the first or the last that was tried."""
    low, high, _ = FIRST_TRIED.indices(len(RATES))
    while True:
        for base in RATES[low:high]:
            measure(store, data, sets, way, base, SEARCH_SEED, "validation")
        best = RATES.index(store.best_base(data, way))
        if best == low > 0:
            low -= 1
        elif best == high - 1 < len(RATES) - 1:
            high += 1
        else:
            return


def run(store: Store, root: Path, names: Sequence[str]) -> None:
    for name in names:
        sets = load(root / name)
        for way in LADDERS:
            search(store, name, sets, way)
    for name in names:
        sets = load(root / name)
        for seed in SEEDS:
            for way in LADDERS:
                measure(store, name, sets, way, store.best_base(name, way), seed, "test")
            for way in FOUND:
                measure_found(store, name, sets, way, seed)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of a 95% interval, Student's t for five values."""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 10: 2.262}[len(values)]
    return float(np.mean(values)), t * float(np.std(values, ddof=1)) / len(values) ** 0.5


def lines(store: Store) -> Iterator[str]:
    for data in dict.fromkeys(row["data"] for row in store.rows.values()):
        yield f"\n{data}: accuracy on test, mean and 95% interval; difference to one rate, seed by seed"
        ways = dict.fromkeys(row["way"] for row in store.rows.values() if row["data"] == data)
        reference = store.accuracies(data=data, way="one rate", split="test")
        for way in ways:
            got = store.accuracies(data=data, way=way, split="test")
            if len(got) < 2:
                continue
            mean, half = interval(got)
            gain, error = interval(np.subtract(got, reference[: len(got)]).tolist())
            text = f"  {gain:+.4f} +- {error:.4f}" if way != "one rate" else ""
            base = next(
                r["rates"] for r in store.rows.values() if (r["data"], r["way"], r["split"]) == (data, way, "test")
            )
            yield f"  {way:24} {mean:.4f} +- {half:.4f} ({len(got)} seeds){text}   rates {base}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("KADENCE_DATA"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", default=["grocery", "fashion"], help="data sets")
    options = parser.parse_args()
    store = Store(RESULTS)
    if options.data is None:
        print("No --data: these are the results that were measured before.")
    else:
        run(store, Path(options.data), options.only)
    print("\n".join(lines(store)))


if __name__ == "__main__":
    main()
