"""What a model is, taken down and put back bit for bit, whatever happened in between."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kadence._pipeline import method
from kadence._snapshot_files import arrays_of, assign_buffers, buffers_of
from kadence._updates import as_array, assign_array

#: What `fit` sets on a model, beside its variables.
_ATTRIBUTES = (
    "optimizer",
    "train_function",
    "test_function",
    "train_step",
    "steps_per_execution",
    "stop_training",
    "stop_evaluating",
    "history",
    "_initial_epoch",
    "_eval_epoch_iterator",
    "_jax_state",
    "_jax_state_synced",
    "_compile_loss",
    "_compile_metrics",
)
_MISSING = object()


class ModelState:
    """A copy of a model's state on the host: weights, statistics, seed generators, metrics; not the optimizer.

    Args:
        model: Compiled `keras.Model`.
        data: What to build it with if it is not built yet, as for `evaluate`. A model without `call`, which trains its
            layers in a `train_step` of its own, is taken as it is where they are built.
    """

    def __init__(self, model: Any, data: dict[str, Any]):
        self._model = model
        self._attributes = {name: vars(model).get(name, _MISSING) for name in _ATTRIBUTES}
        self._arrays: list[tuple[keras.Variable, np.ndarray]] = []
        self._buffers: list[np.ndarray] | None = None
        self._modes: list[tuple[Any, bool]] = []
        self._gradients: list[tuple[Any, Any]] = []
        try:
            self._take(data)
        except BaseException:
            self.put_back()
            raise

    def _take(self, data: dict[str, Any]) -> None:
        model = self._model
        # For loss and metrics that are not built, Keras looks at a batch first, which changes the order of the data.
        loss, metrics = vars(model).get("_compile_loss"), vars(model).get("_compile_metrics")
        if loss is not None and not loss.built:
            again = type(loss)(loss._user_loss, loss._user_loss_weights, output_names=loss.output_names)
            vars(model)["_compile_loss"] = again
        if metrics is not None and not metrics.built:
            wanted = metrics._user_metrics, metrics._user_weighted_metrics
            vars(model)["_compile_metrics"] = type(metrics)(*wanted, output_names=metrics.output_names)
        if not model.built and (type(model).call is not keras.Model.call or not _has_built_layers(model)):
            method(model, "evaluate", data["x"])(**data, steps=1, verbose=0)
        variables = {id(variable): variable for variable in [*model.variables, *model.metrics_variables]}
        self._arrays = [(v, as_array(v)) for v in variables.values()]
        self._buffers = arrays_of(buffers_of(model))
        if keras.backend.backend() == "torch":
            self._modes = [(module, module.training) for module in model.modules()]
            self._gradients = [(v.value, v.value.grad) for v in model.trainable_variables]

    def put_back_variables(self) -> None:
        """Assign all variables; those of metrics that came later start anew."""
        self._model.reset_metrics()
        for variable, array in self._arrays:
            assign_array(variable, array)
        if self._buffers is not None:
            assign_buffers(self._model, self._buffers)

    def put_back(self) -> None:
        """Assign all variables, and put everything else back that `fit` sets."""
        self._model.reset_metrics()  # those of the user too, which what is put back may not know yet
        # Not by setattr, which on TensorFlow makes the model keep track of what it is given.
        for name, value in self._attributes.items():
            vars(self._model).pop(name, None)
            if value is not _MISSING:
                vars(self._model)[name] = value
        self.put_back_variables()
        if self._modes:
            self._model.train(self._modes[0][1])  # also the parameter lists that Keras made anew
        for module, training in self._modes:
            module.training = training
        for tensor, gradient in self._gradients:
            tensor.grad = gradient


def _has_built_layers(model: Any) -> bool:
    return all(layer.built for layer in model._flatten_layers(include_self=False, recursive=True))


@contextlib.contextmanager
def given_back(model: Any, data: dict[str, Any]) -> Iterator[ModelState]:
    """Put the model back at the end, also after an error or Ctrl-C.

    Args:
        model: Compiled `keras.Model`.
        data: What to build it with if it is not built yet, as for `evaluate`.
    """
    state = ModelState(model, data)
    try:
        yield state
    finally:
        with _uninterrupted():
            state.put_back()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let a Ctrl-C wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    waiting: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting and sys.exc_info()[0] is not KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
