"""Snapshots of a training run -> one averaged prediction."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._arrays import check_repeatable, chunks_of, length_of, slice_of
from kadence._snapshot_files import (
    Source,
    check_files,
    check_model,
    check_shares,
    files_of,
    load_weights,
    own_weights,
    save_weights,
)
from kadence.batch_norm import recompute_batch_norm


class SnapshotEnsemble:
    """The averaged prediction of several snapshots of one model.

    One model takes the weights of the snapshots in turn, so that memory holds one model and one prediction. After
    every call it has its own weights back, also after an exception or Ctrl-C.

    Args:
        model: Built `keras.Model` of the architecture that was trained; compiled, for `evaluate` and `weigh`.
        files: The files of the snapshots, as `SnapshotSaver` or `model.save_weights` wrote them; at least one.
        weights: Share of each snapshot in the average: floats >= 0, scaled to the sum 1. None for equal shares.

    Attributes:
        weights: Share of each snapshot. Array of shape (n,), float64, with the sum 1.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file holds other weights, there is none, or the shares are negative or all 0.
        TypeError: If an argument has the wrong type.

    Example:
        >>> ensemble = kadence.SnapshotEnsemble.load("snapshots", model)
        >>> probabilities = ensemble.predict(x)

    Source:
        Huang et al. 2017, Snapshot Ensembles: Train 1, Get M for Free, section 3, arXiv:1704.00109.
    """

    def __init__(self, model: keras.Model, files: Sequence[str | os.PathLike[str]], weights: Any = None):
        self.model: Any = check_model(model)
        self.files = check_files(files)
        self.weights = check_shares(weights, len(self.files))
        self._each(lambda share: None)  # every file fits the model, or none is used

    @classmethod
    def load(cls, source: Source, model: keras.Model, last: int | None = None) -> "SnapshotEnsemble":
        """The ensemble of the snapshots in a folder.

        Args:
            source: Folder that `SnapshotSaver` wrote, or a sequence of files.
            model: Built `keras.Model` of the same architecture.
            last: How many of the latest snapshots to take. Integer >= 1, or None for all.

        Returns:
            `SnapshotEnsemble` with equal shares.

        Raises:
            FileNotFoundError: If the folder has no snapshots, or a file is missing.
            ValueError: If a file holds other weights than the model's, or there are fewer than `last`.
            TypeError: If an argument has the wrong type.
        """
        return cls(model, files_of(source, last))

    def __len__(self) -> int:
        return len(self.files)

    def predict(self, x: Any, batch_size: int | None = None, predict: Callable[[Any], Any] | None = None) -> Any:
        """The weighted mean of the outputs of all snapshots.

        Args:
            x: Inputs as `model.predict` takes them. They are read once for each snapshot, so their order has to be
                the same every time, and an iterator will not do.
            batch_size: Samples in a batch. Integer >= 1, or None for Keras's default.
            predict: What to call with `x` in place of `model.predict`, at the weights of each snapshot.

        Returns:
            Array of the shape of `model.predict(x)`, float32, or a structure of them for several outputs.

        Raises:
            TypeError: If `x` is an iterator.
        """
        check_repeatable("x", x)
        total: Any = None

        def add(share: float) -> None:
            nonlocal total
            own = self._predict_one(x, batch_size) if predict is None else predict(x)
            scaled = keras.tree.map_structure(lambda a: share * np.asarray(a, np.float64), own)
            total = scaled if total is None else keras.tree.map_structure(np.add, total, scaled)

        self._each(add)
        return keras.tree.map_structure(lambda array: array.astype(np.float32), total)

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None, batch_size: int = 32) -> dict[str, float]:
        """The compiled loss and metrics of the averaged prediction.

        The loss is that of the mean output, not the mean of the losses. Penalties that layers add, such as weight
        decay by regularizers, belong to the weights of one snapshot and are left out.

        Args:
            x: Inputs, or a dataset of batches (x, y) or (x, y, sample_weight), in any order, a new one each time too;
                not an iterator.
            y: Targets, where `x` is not a dataset.
            sample_weight: Weight of each sample, or None.
            batch_size: Samples in a batch; of a dataset, those of its own are predicted at a time. Integer >= 1.

        Returns:
            Dict of name to float: "loss" and the metrics of `model.compile`; of a metric with several values, such as
            one per class, their mean.

        Raises:
            ValueError: If the model is not compiled with a loss, or there are no targets.
            TypeError: If `x` is an iterator.
        """
        batch_size = _checks.integer("batch_size", batch_size, minimum=1, unit="in samples")
        scored: list[tuple[Any, Any, Any]] = []
        for chunk in self._evaluation_data(x, y, sample_weight):
            mean = self.predict(
                chunk, predict=lambda parts: [self._predict_one(p[0], p[3] or batch_size) for p in parts]
            )
            scored += [(part[1], own, part[2]) for part, own in zip(chunk, mean, strict=True)]
        return _score(self.model, scored, batch_size)

    def weigh(
        self, x: Any, y: Any = None, sample_weight: Any = None, temperature: float = 1.0, batch_size: int = 32
    ) -> np.ndarray:
        """Set the shares by the loss of each snapshot on validation data.

        share_k = exp(-loss_k / temperature) / sum over all j of exp(-loss_j / temperature)

        With a mean cross-entropy for a loss and temperature 1, a share is proportional to the geometric mean of the
        probabilities that the snapshot gives the true classes. Lower temperatures lean towards the best snapshot,
        higher ones towards equal shares.

        Args:
            x: Inputs, or a dataset of batches (x, y) or (x, y, sample_weight); not an iterator.
            y: Targets, where `x` is not a dataset.
            sample_weight: Weight of each sample, or None.
            temperature: In units of the loss. Float > 0.
            batch_size: Samples in a batch. Integer >= 1.

        Returns:
            The losses, in the order of `files`. Array of shape (n,), float64.

        Raises:
            ValueError: If the model is not compiled with a loss, there are no targets, or a loss is not finite.
            TypeError: If `x` is an iterator.
        """
        temperature = _checks.number("temperature", temperature, above=0.0, unit="in units of the loss")
        batch_size = _checks.integer("batch_size", batch_size, minimum=1, unit="in samples")
        totals, n_samples = np.zeros(len(self)), 0
        for chunk in self._evaluation_data(x, y, sample_weight):
            totals += self._losses_of_each(chunk, batch_size)
            n_samples += sum(length_of(targets) for _, targets, _, _ in chunk)
        losses = totals / n_samples
        if not np.isfinite(losses).all():
            raise ValueError(_checks.sentence("losses", "be finite for every snapshot", losses.tolist()))
        self.weights = check_shares(np.exp((losses.min() - losses) / temperature), len(self))
        return losses

    def disagreement(self, x: Any, batch_size: int | None = None) -> np.ndarray:
        """How often two snapshots name different classes.

        Args:
            x: Inputs as `model.predict` takes them; not an iterator.
            batch_size: Samples in a batch. Integer >= 1, or None for Keras's default.

        Returns:
            Share of the samples whose largest output is another one; for a single output, that are on different sides
            of 0.5. Symmetric array of shape (n, n), float64, with 0 on the diagonal.

        Raises:
            ValueError: If the model has several outputs.
            TypeError: If `x` is an iterator.
        """
        check_repeatable("x", x)
        differing, n_samples = np.zeros((len(self), len(self))), 0
        for chunk in chunks_of(x):
            classes: list[np.ndarray] = []
            self._each(lambda share, chunk=chunk, found=classes: found.append(self._classes_in(chunk, batch_size)))
            differing += [[np.sum(one != other) for other in classes] for one in classes]
            n_samples += classes[0].size
        return differing / n_samples

    def recompute_batch_norm(self, batches: Iterable[Any]) -> int:
        """Compute the BatchNormalization statistics of every snapshot anew, and write its file again.

        Layers that are frozen in the model keep theirs, as in the training.

        Args:
            batches: As for `kadence.recompute_batch_norm`; read once for each snapshot.

        Returns:
            Number of BatchNormalization layers that were reached.

        Raises:
            TypeError: If `batches` is an iterator.
        """
        check_repeatable("batches", batches)
        reached = 0
        with own_weights(self.model):
            for file in self.files:
                load_weights(self.model, file)
                reached = recompute_batch_norm(self.model, batches)
                if reached:
                    save_weights(self.model, file)
        return reached

    def _each(self, function: Callable[[float], None]) -> None:
        """Call `function` with the share of each snapshot, while the model has its weights."""
        with own_weights(self.model):
            for file, share in zip(self.files, self.weights.tolist(), strict=True):
                load_weights(self.model, file)
                function(share)

    def _predict_one(self, x: Any, batch_size: int | None) -> Any:
        return self.model.predict(x, batch_size=batch_size, verbose=0)

    def _classes_in(self, chunk: list[Any], batch_size: int | None) -> np.ndarray:
        return np.concatenate([_classes(self._predict_one(x, batch_size or rows)) for x, _, _, rows in chunk])

    def _losses_of_each(self, chunk: list[Any], batch_size: int) -> list[float]:
        """The compiled loss of each snapshot, as a sum over the samples."""
        sums: list[float] = []

        def judge(share: float) -> None:
            parts = [(y, self._predict_one(x, rows or batch_size), weights) for x, y, weights, rows in chunk]
            sums.append(sum(loss * n for loss, n, _ in _losses(self.model, parts, batch_size)))

        try:
            self._each(judge)
        finally:
            self.model.reset_metrics()
        return sums

    def _evaluation_data(self, x: Any, y: Any, sample_weight: Any) -> Iterator[list[Any]]:
        check_repeatable("x", x)
        if getattr(self.model, "_compile_loss", None) is None:
            raise ValueError(_checks.sentence("model", "be compiled with a loss", self.model.name))
        chunk: Any = None
        for chunk in chunks_of(x, y, sample_weight):
            if any(targets is None for _, targets, _, _ in chunk):
                raise ValueError(_checks.sentence("y", "be the targets, unless `x` is a dataset with them", y))
            yield chunk
        if chunk is None:
            raise ValueError(_checks.sentence("x", "hold at least one batch", x))


def _score(model: Any, parts: list[tuple[Any, Any, Any]], batch_size: int) -> dict[str, float]:
    """The compiled loss, as a mean over the samples, and the compiled metrics, of targets, predictions and weights."""
    total = n_samples = 0.0
    model.reset_metrics()
    try:
        for loss, n, rows in _losses(model, parts, batch_size):
            total, n_samples = total + loss * n, n_samples + n
            model.compute_metrics(None, *rows)
        results = {
            name: float(np.mean(np.asarray(keras.ops.convert_to_numpy(value))))
            for name, value in model.get_metrics_result().items()
        }
    finally:
        model.reset_metrics()
    return {**results, "loss": total / n_samples}


def _losses(
    model: Any, parts: list[tuple[Any, Any, Any]], batch_size: int
) -> Iterator[tuple[float, int, tuple[Any, Any, Any]]]:
    """The compiled loss of each batch, its number of samples, and its targets, predictions and weights."""
    for y, predicted, sample_weight in parts:
        n = length_of(predicted)
        if length_of(y) != n:
            raise ValueError(_checks.sentence("y", f"hold one target for each of the {n} samples", length_of(y)))
        for start in range(0, n, batch_size):
            a, b, c = (_tensors(slice_of(part, start, start + batch_size)) for part in (y, predicted, sample_weight))
            # Keras has no public way to the compiled loss without the penalties of the layers.
            yield float(model._compile_loss(a, b, c)), min(batch_size, n - start), (a, b, c)


def _tensors(structure: Any) -> Any:
    return None if structure is None else keras.tree.map_structure(keras.ops.convert_to_tensor, structure)


def _classes(predicted: Any) -> np.ndarray:
    if not isinstance(predicted, np.ndarray):
        raise ValueError(_checks.sentence("model", "have one output, to compare classes", type(predicted).__name__))
    return predicted[..., 0] > 0.5 if predicted.shape[-1] == 1 else predicted.argmax(-1)
