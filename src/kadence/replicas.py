"""Data parallel training: the devices that share a batch, and the rates for the larger batch."""

import contextlib
from dataclasses import dataclass
from typing import Any

import keras

from kadence import _checks
from kadence.budgets import scale_for_batch

_RULE = 'be "auto" or an integer >= 1, a number of devices'


@dataclass(frozen=True)
class Replicas:
    """The devices that share a batch, each with a copy of the model; made by `find_replicas`.

    Args:
        devices: Name of the device of each replica, as Keras calls it; () for a single one on Keras's own choice.
    """

    devices: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of replicas."""
        return max(1, len(self.devices))

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where a model has to be built, compiled and trained."""
        return (
            keras.distribution.DataParallel(devices=self.devices).scope() if self.devices else contextlib.nullcontext()
        )

    def rate_factor(self, optimizer: str) -> float:
        """What the larger batch does to the rates that were found for the batch of one replica.

        Args:
            optimizer: Name of the optimizer, such as "adam".

        Returns:
            The factor of `scale_for_batch`, by the rule for the optimizer. Float >= 1.
        """
        return scale_for_batch(1.0, len(self), 1, batch_rule(optimizer))

    def describe(self, optimizer: str, batch_size: int) -> dict[str, Any]:
        """What to remember of a run.

        Args:
            optimizer: Name of the optimizer.
            batch_size: Images in a batch of one replica. Integer >= 1.

        Returns:
            Dict of JSON types: the devices, the images in an update, the factor on the rates and its rule.
        """
        return {
            "devices": list(self.devices),
            "images_per_step": len(self) * batch_size,
            "rate_factor": self.rate_factor(optimizer),
            "rule": batch_rule(optimizer),
        }

    def sentence(self, optimizer: str, batch_size: int) -> str:
        """The same in a line for people.

        Args:
            optimizer: Name of the optimizer.
            batch_size: Images in a batch of one replica. Integer >= 1.

        Returns:
            String.
        """
        if len(self) == 1:
            return "1 replica: there is one device"
        batch = f"{len(self)} x {batch_size} = {len(self) * batch_size} photos in a step"
        factor = f"{self.rate_factor(optimizer):.4g} ({batch_rule(optimizer)}, as is usual for {optimizer})"
        return f"{len(self)} replicas on {', '.join(self.devices)}: {batch}, all rates times {factor}"


def batch_rule(optimizer: str) -> str:
    """The rule of `scale_for_batch` for an optimizer: "linear" for "sgd", "sqrt" for those that adapt.

    Args:
        optimizer: Name of the optimizer.

    Returns:
        "linear" or "sqrt".
    """
    return "linear" if optimizer == "sgd" else "sqrt"


def find_replicas(replicas: int | str) -> Replicas:
    """The devices for a number of replicas.

    Args:
        replicas: Integer >= 1, or "auto" for all devices of the kind that Keras takes: GPUs or TPUs, else CPUs.

    Returns:
        `Replicas`.

    Raises:
        ValueError: If there are fewer devices, or the backend is not JAX: Keras 3 shares batches out on JAX only.
        TypeError: If `replicas` is neither an integer nor "auto".
    """
    wanted = check_replicas(replicas)
    if wanted == 1:
        return Replicas()
    if keras.backend.backend() != "jax":
        rule = f"be 1 with the backend {keras.backend.backend()}: Keras shares a batch out to devices on JAX only"
        raise ValueError(_checks.sentence("replicas", rule, replicas, "Set KERAS_BACKEND=jax."))
    devices = keras.distribution.list_devices()
    n_replicas = len(devices) if isinstance(wanted, str) else wanted
    if n_replicas > len(devices):
        rule = f"be at most the number of devices that JAX sees, {len(devices)} ({', '.join(devices)})"
        raise ValueError(_checks.sentence("replicas", rule, replicas))
    return Replicas(tuple(devices[:n_replicas]) if n_replicas > 1 else ())


def check_replicas(replicas: Any) -> int | str:
    """`replicas` if it can be meant.

    Args:
        replicas: Integer >= 1, or "auto".

    Returns:
        `replicas`.
    """
    if isinstance(replicas, str):
        if replicas != "auto":
            raise ValueError(_checks.sentence("replicas", _RULE, replicas))
        return replicas
    return _checks.integer("replicas", replicas, minimum=1, unit='a number of devices, or "auto"')
