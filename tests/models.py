"""One small built model of every kind, with the addresses of its layers as one would write them down."""

import re

import keras
import numpy as np
import pytest
from keras import layers


def dense(name, **kwargs):
    return layers.Dense(2, name=name, **kwargs)


def plain(address):
    """Without the number that Keras adds to a name of its own making when it comes up again."""
    return re.sub(r"/(softmax|dropout)_\d+$", r"/\1", address)


def functional():
    """A branch, and layers without weights."""
    inputs = keras.Input((2,), name="in")
    x = dense("a")(inputs)
    y = layers.ReLU(name="relu")(x)
    y = layers.BatchNormalization(name="norm")(y)
    z = layers.Add(name="add")([y, dense("b")(x)])
    return keras.Model(inputs, dense("c")(layers.Flatten(name="flat")(z)), name="functional")


def sequential(names=("a", "b", "c"), name="sequential", inputs="in"):
    return keras.Sequential([keras.Input((2,), name=inputs), *(dense(layer) for layer in names)], name=name)


def stacked(pattern):
    """A Sequential with a weightless layer where `pattern` has "-" and a layer with weights where it has "w"."""
    made = [
        dense(f"layer{i}") if kind == "w" else layers.Activation("relu", name=f"layer{i}")
        for i, kind in enumerate(pattern)
    ]
    return keras.Sequential([keras.Input((2,), name="in"), *made], name="stacked")


class _Subclassed(keras.Model):
    """Layers in an attribute, a list and a dict."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.stem = dense("stem")
        self.blocks = [dense("block0"), dense("block1")]
        self.heads = {"one": dense("head")}

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.heads["one"](x)


class _Owner(keras.Model):
    """A model with a weight of its own."""

    def __init__(self):
        super().__init__(name="owner")
        self.a = dense("a")
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")

    def call(self, x):
        return self.a(x) * self.scale


@keras.saving.register_keras_serializable(package="kadence_tests")
class Block(layers.Layer):
    """A layer with a weight of its own and sublayers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = dense("first")
        self.second = dense("second")

    def build(self, shape):
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")
        self.first.build(shape)
        self.second.build((None, 2))

    def call(self, x):
        return self.second(self.first(x)) * self.gain


class _TiedDense(layers.Layer):
    """A dense layer with the kernel of another, the other way round."""

    def __init__(self, kernel, **kwargs):
        super().__init__(**kwargs)
        self.kernel = kernel

    def build(self, shape):
        self.bias = self.add_weight(shape=(2,), name="bias")

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.kernel)) + self.bias


class _Tied(keras.Model):
    def __init__(self):
        super().__init__(name="tied")
        self.encoder = dense("encoder")
        self.encoder.build((None, 2))
        self.decoder = _TiedDense(self.encoder.kernel, name="decoder")

    def call(self, x):
        return self.decoder(self.encoder(x))


def called(model):
    model(np.ones((1, 2), "float32"))
    return model


def subclassed():
    return called(_Subclassed())


def owner():
    return called(_Owner())


def tied():
    return called(_Tied())


def nested_functional():
    """PEERS.md: the variables of a nested functional model do not have its name in their paths."""
    inner_in = keras.Input((2,), name="inner_in")
    x = layers.BatchNormalization(name="norm")(dense("conv")(inner_in))
    backbone = keras.Model(inner_in, dense("top")(x), name="backbone")
    inputs = keras.Input((2,), name="in")
    return keras.Model(inputs, dense("head")(backbone(inputs)), name="outer")


def nested_sequential():
    backbone = sequential(("a", "b"), "backbone", "inner_in")
    return keras.Sequential([keras.Input((2,), name="in"), backbone, dense("head")])


def nested_twice():
    """Two levels, and the same names on each."""
    middle_in = keras.Input((2,), name="middle_in")
    innermost = sequential(("a", "b"), "innermost", "innermost_in")
    middle = keras.Model(middle_in, dense("a")(innermost(dense("b")(middle_in))), name="middle")
    inputs = keras.Input((2,), name="in")
    return keras.Model(inputs, dense("a")(middle(inputs)), name="outer")


def composite():
    """Layers made of layers."""
    inputs = keras.Input((4, 2), name="in")
    x = layers.MultiHeadAttention(1, 2, name="attention")(inputs, inputs)
    x = layers.TimeDistributed(dense("inside"), name="each")(x)
    x = layers.Bidirectional(layers.SimpleRNN(2, name="rnn"), name="both")(x)
    return keras.Model(inputs, Block(name="block")(x), name="composite")


def shared():
    """One layer called twice, and one inside two nested models."""
    common = dense("common")
    first = keras.Sequential([keras.Input((2,), name="first_in"), dense("a"), common], name="first")
    second = keras.Sequential([keras.Input((2,), name="second_in"), common, dense("b")], name="second")
    inputs = keras.Input((2,), name="in")
    twice = dense("twice")
    return keras.Model(inputs, twice(second(first(twice(inputs)))), name="shared")


def unicode():
    return sequential(("größe", "层", "a b", "é1:[x]"), name="mödel")


def frozen():
    model = sequential(("a", "b", "c", "d"), name="frozen")
    model.get_layer("b").trainable = False
    model.get_layer("c").bias.trainable = False
    return model


def same_names():
    """Keras allows equal names in a Sequential's nested parts and in a subclassed model."""

    class Same(keras.Model):
        def __init__(self):
            super().__init__(name="same")
            self.parts = [dense("x"), dense("x"), dense("y")]

        def call(self, inputs):
            for part in self.parts:
                inputs = part(inputs)
            return inputs

    return called(Same())


def torch_module():
    """A module of PyTorch, with running statistics that are no weights; on PyTorch only."""
    import torch

    norm = layers.TorchModuleWrapper(torch.nn.BatchNorm1d(2), name="norm", output_shape=(None, 2))
    model = keras.Sequential([keras.Input((2,)), norm, dense("head")])
    model(np.ones((1, 2), "float32"), training=False)
    return model


#: Builder -> the addresses of its units, in definition order.
ADDRESSES = {
    functional: ["in", "a", "relu", "norm", "b", "add", "flat", "c"],
    sequential: ["in", "a", "b", "c"],
    subclassed: ["stem", "block0", "block1", "head"],
    owner: ["owner", "a"],
    tied: ["encoder", "decoder"],
    nested_functional: ["in", "backbone/inner_in", "backbone/conv", "backbone/norm", "backbone/top", "head"],
    nested_sequential: ["in", "backbone/inner_in", "backbone/a", "backbone/b", "head"],
    nested_twice: [
        "in",
        "middle/middle_in",
        "middle/b",
        "middle/innermost/innermost_in",
        "middle/innermost/a",
        "middle/innermost/b",
        "middle/a",
        "a",
    ],
    composite: [
        "in",
        "attention/query",
        "attention/key",
        "attention/value",
        "attention/softmax",
        "attention/dropout",
        "attention/attention_output",
        "each/inside",
        "both/forward_rnn/simple_rnn_cell",
        "both/backward_rnn/simple_rnn_cell",
        "block",
        "block/first",
        "block/second",
    ],
    shared: ["in", "twice", "first/first_in", "first/a", "first/common", "second/second_in", "second/b"],
    unicode: ["in", "größe", "层", "a b", "é1:[x]"],
    frozen: ["in", "a", "b", "c", "d"],
    same_names: ["x", "x", "y"],
}
BUILDERS = list(ADDRESSES)


# What tests of layer groups ask

every_model = pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)


def ids(variables):
    return [id(variable) for variable in variables]


def variables_of(groups):
    return [variable for group in groups for variable in group.variables]


def layers_of(groups):
    return [list(group.layers) for group in groups]


def message(error, call):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)
