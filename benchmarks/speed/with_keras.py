"""The task's networks in Keras on TensorFlow: a compiled training step, batches from tf.data."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rounds import claim_output, read_task, serve


def layer(text: str, shape: tuple[int, ...]) -> layers.Layer:
    """Returns the Keras layer of a layer spec."""
    word, *rest = text.split()
    options = {part[0]: int(part[1:]) for part in rest if part[0] in "ks" and part[1:].isdigit()}
    kernel, stride, bias = options.get("k", 1), options.get("s", 1), "nobias" not in rest
    if word == "dense":
        return layers.Dense(int(rest[0]), use_bias=bias)
    if word in {"conv", "deconv"}:
        kind = layers.Conv2D if word == "conv" else layers.Conv2DTranspose
        return kind(int(rest[0]), kernel, strides=stride, padding="same", use_bias=bias)
    if word == "reshape":
        channels, height, width = map(int, rest[0].split("x"))
        return layers.Reshape((height, width, channels))
    plain = {
        "flatten": layers.Flatten, "globalmax": layers.GlobalMaxPooling2D, "bn": layers.BatchNormalization,
        "relu": layers.ReLU, "lrelu": layers.LeakyReLU, "dropout": layers.Dropout,
    }  # fmt: skip
    return plain[word](*map(float, rest)) if word in plain else layers.Activation(word)


def network(described: dict[str, Any]) -> keras.Model:
    """Returns a stack of layers; images are channels-last."""
    shape = tuple(described["shape"])
    stack = [keras.Input((*shape[1:], shape[0]) if len(shape) == 3 else shape)]
    return keras.Sequential(stack + [layer(text, shape) for text in described["layers"]])


def main() -> None:
    """Builds the networks and trains until no more rounds are requested."""
    answers, task = claim_output(), read_task()
    networks = {name: network(described) for name, described in task["networks"].items()}
    beta1, beta2 = task["betas"]
    adam = {name: keras.optimizers.Adam(task["rate"], beta_1=beta1, beta_2=beta2) for name in networks}
    for name, net in networks.items():
        adam[name].build(net.trainable_variables)
    with np.load(task["images"]) as arrays:
        images = arrays["train"].astype(np.float32) / 255
        labels = arrays["labels"] if task["conditional"] else np.zeros(len(images), np.int64)
    if task["range"] == "-1..1":
        images = images * 2 - 1
    classes = np.eye(10, dtype=np.float32)[labels]
    source = tf.data.Dataset.from_tensor_slices((images, classes)).shuffle(len(images)).repeat()
    data = iter(source.batch(task["batch"], drop_remainder=True).prefetch(tf.data.AUTOTUNE))
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def learn(tape: tf.GradientTape, loss: tf.Tensor, *names: str) -> None:
        for name, slopes in zip(
            names, tape.gradient(loss, [networks[n].trainable_variables for n in names]), strict=True
        ):
            adam[name].apply(slopes, networks[name].trainable_variables)

    @tf.function
    def vae(x: tf.Tensor, _: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            mean, logvar = tf.split(networks["encoder"](x, training=True), 2, axis=1)
            z = mean + tf.exp(logvar / 2) * tf.random.normal(tf.shape(mean))
            rebuilt = networks["decoder"](z, training=True)
            error = tf.reduce_sum(keras.losses.binary_crossentropy(x, rebuilt), axis=(1, 2))
            divergence = -0.5 * tf.reduce_sum(1 + logvar - mean**2 - tf.exp(logvar), axis=1)
            loss = tf.reduce_mean(error + divergence)
        learn(tape, loss, "encoder", "decoder")

    def scores(x: tf.Tensor, condition: tf.Tensor) -> tf.Tensor:
        if task["conditional"]:
            x = tf.concat([x, tf.tile(condition[:, None, None, :], [1, x.shape[1], x.shape[2], 1])], axis=3)
        return networks["discriminator"](x, training=True)

    def generate(condition: tf.Tensor) -> tf.Tensor:
        z = tf.random.normal((task["batch"], task["latent"]))
        return networks["generator"](tf.concat([z, condition], axis=1) if task["conditional"] else z, training=True)

    @tf.function
    def gan(x: tf.Tensor, condition: tf.Tensor) -> None:
        ones, zeros = tf.ones((task["batch"], 1)), tf.zeros((task["batch"], 1))
        with tf.GradientTape() as generator_tape:  # fakes are generated once for both networks
            fakes = generate(condition)
            with generator_tape.stop_recording(), tf.GradientTape() as tape:
                loss = entropy(ones, scores(x, condition)) + entropy(zeros, scores(tf.stop_gradient(fakes), condition))
            with generator_tape.stop_recording():
                learn(tape, loss, "discriminator")
            loss = entropy(ones, scores(fakes, condition))
        learn(generator_tape, loss, "generator")
        for _ in range(task["generator_updates"] - 1):
            with tf.GradientTape() as generator_tape:
                loss = entropy(ones, scores(generate(condition), condition))
            learn(generator_tape, loss, "generator")

    step = vae if "encoder" in networks else gan
    serve(lambda: step(*next(data)), answers)


if __name__ == "__main__":
    main()
