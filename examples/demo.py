"""The demo: fine-tune EfficientNet-Lite0 on real handwritten digits, against a frozen backbone with a trained head.

Both runs are the `kadence finetune` command that everybody uses; this script only writes the pictures and calls it.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

from kadence.digits import write_digits

COMMON = "--image-size 64 --no-augment --batch-size 16"
RUNS = {
    "frozen": ("backbone frozen, head trained", "--rates 0,0,1e-2 --cycles 2"),
    "finetuned": ("every group at its rate, warm restarts", "--rates 2e-4,4e-4,2e-3 --cycles 2"),
}


def main() -> None:
    """Write the digits, run both, print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the digits and the runs")
    parser.add_argument("--fast", action="store_true", help="fewer pictures, to see that everything works")
    options = parser.parse_args()
    n_images = 200 if options.fast else 1000
    photos = write_digits(options.out / f"digits_{n_images}", n_train=n_images, n_test=n_images)
    results = {}
    for name, (description, flags) in RUNS.items():
        folder = fresh(options.out / f"run_{n_images}_{name}")
        command = ["finetune", photos / "train", "--validation", photos / "test", *COMMON.split(), *flags.split()]
        words = [str(word) for word in [*command, "--out", folder]]
        print(f"\n{description}:\n$ kadence {' '.join(words)}", flush=True)
        subprocess.run([sys.executable, "-m", "kadence", *words], check=True, env=os.environ)
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        best = max(float(row["val_accuracy"]) for row in rows)
        results[description] = (best, sum(float(row["seconds"]) for row in rows), folder)
    print(f"\nAccuracy on {n_images} digits that were not trained on:")
    for description, (accuracy, seconds, folder) in results.items():
        print(f"  {accuracy:.3f}  {description}, {seconds:.0f} s; pictures: {folder}/rates.png and curves.png")


def fresh(folder: Path) -> Path:
    """The first of folder, folder_2, folder_3, ... that does not exist: no run is overwritten."""
    number = 2
    candidate = folder
    while candidate.exists():
        candidate = folder.with_name(f"{folder.name}_{number}")
        number += 1
    return candidate


if __name__ == "__main__":
    main()
