"""What `import kadence` adds to `import keras`, in seconds: each time in a new process, Keras first, then Kadence.

    KERAS_BACKEND=jax python benchmarks/import_time.py

Both imports are timed within the process, by its CPU time and by the clock: the difference of two whole processes
would drown in the seconds that a backend takes. The first process is not counted; it writes Kadence's bytecode, which
`pip install` writes for people.
"""

# backends: jax tensorflow torch

import argparse
import os
import statistics
import subprocess
import sys

TARGET = 0.1
CODE = """
import time

def now():
    return time.process_time(), time.perf_counter()

start = now()
import keras
middle = now()
import kadence
end = now()
print(*(b - a for a, b in zip(start, middle)), *(b - a for a, b in zip(middle, end)))
"""


def seconds() -> list[float]:
    """CPU time and clock of `import keras`, then of `import kadence`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="processes that are timed")
    rounds = parser.parse_args().rounds
    seconds()
    columns = list(zip(*(seconds() for _ in range(rounds)), strict=True))
    backend, load = os.environ.get("KERAS_BACKEND", "the default backend"), os.getloadavg()[0]
    print(f"Seconds on {backend}, least and median of {rounds} processes, load average {load:.1f}")
    names = ["import keras, CPU", "import keras, clock", "then import kadence, CPU", "then import kadence, clock"]
    for name, column in zip(names, columns, strict=True):
        print(f"  {name:28} {min(column):7.3f} {statistics.median(column):7.3f}")
    added = min(columns[3])
    print(f"  target: at most {TARGET} by the clock; got {added:.3f}: {'met' if added <= TARGET else 'missed'}")


if __name__ == "__main__":
    main()
