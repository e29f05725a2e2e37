"""The models that people start from with Keras, as the guides of keras.io and tensorflow.org describe them.

- `vae`: keras.io, Variational AutoEncoder (digits, 28x28): two latents, Adam at 1e-3, batch 128.
- `cgan`: keras.io, Conditional GAN (digits, 28x28): 128 of noise, Adam at 3e-4, batch 64.
- `dcgan`: for 28x28, tensorflow.org, Deep Convolutional Generative Adversarial Network: 100 of noise, Adam at 1e-4,
  batch 256; for 64x64, keras.io, DCGAN to generate face images: 128 of noise, Adam at 1e-4, noisy labels, batch 32.

Layers, losses and settings are theirs; written anew here. Runs in an environment of its own (`keras.txt`):

    python benchmarks/peers/with_keras.py MODEL IMAGES.npz OUT.npz --minutes M
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from exchange import Budget, Task, read_task, write_made
from keras import layers

CHUNK = 256


class Stopwatch(keras.callbacks.Callback):
    """Ends training when the time is up."""

    def __init__(self, minutes: float, batch: int) -> None:
        super().__init__()
        self.budget, self.batch, self.seconds = Budget(minutes), batch, 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.budget.start()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.budget.spent(self.batch):
            self.model.stop_training = True
            self.seconds = self.budget.seconds


class Vae(keras.Model):
    """Binary cross-entropy summed over pixels, and the KL divergence."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
                layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
                layers.Flatten(),
                layers.Dense(16, activation="relu"),
                layers.Dense(2 + 2),
            ]
        )
        self.decoder = keras.Sequential(
            [
                keras.Input((2,)),
                layers.Dense(7 * 7 * 64, activation="relu"),
                layers.Reshape((7, 7, 64)),
                layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu"),
                layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
                layers.Conv2DTranspose(1, 3, padding="same", activation="sigmoid"),
            ]
        )

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            mean, logvar = tf.split(self.encoder(images, training=True), 2, axis=1)
            latents = mean + tf.exp(0.5 * logvar) * tf.random.normal(tf.shape(mean))
            rebuilt = self.decoder(latents, training=True)
            error = tf.reduce_mean(
                tf.reduce_sum(
                    keras.losses.binary_crossentropy(images, rebuilt), axis=(1, 2)
                )  # channels: the mean of one
            )
            divergence = tf.reduce_mean(tf.reduce_sum(0.5 * (tf.exp(logvar) + mean**2 - 1 - logvar), axis=1))
            loss = error + divergence
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}

    def make(self, n: int) -> np.ndarray:
        return self.decoder.predict(keras.random.normal((n, 2)), batch_size=CHUNK, verbose=0)

    def rebuild(self, images: np.ndarray) -> np.ndarray:
        means = self.encoder.predict(images, batch_size=CHUNK, verbose=0)[:, :2]
        return self.decoder.predict(means, batch_size=CHUNK, verbose=0)


class Gan(keras.Model):
    """As keras.io trains it: binary cross-entropy, made images labelled 1, and noise of its own for each network.

    The guides call their networks without `training`, which leaves dropout out.

    Args:
        generator: of `(N, noise + classes)`.
        discriminator: of `(N, H, W, C + classes)`, to a logit.
        noise: numbers drawn for an image.
        classes: classes that an image is made for; 0 for none.
        blur: width of the noise on the labels.
        signed: images are in -1..1.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        noise: int,
        *,
        classes: int = 0,
        blur: float = 0.0,
        signed: bool = False,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.noise, self.classes, self.blur, self.signed = noise, classes, blur, signed

    def compile(self, rate: float) -> None:
        super().compile()
        self.generator_optimizer = keras.optimizers.Adam(rate)
        self.discriminator_optimizer = keras.optimizers.Adam(rate)
        self.entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def _drawn(self, wanted: tf.Tensor | None, n: tf.Tensor) -> tf.Tensor:
        noise = tf.random.normal((n, self.noise))
        return noise if wanted is None else tf.concat([noise, wanted], axis=1)

    def _shown(self, images: tf.Tensor, wanted: tf.Tensor | None) -> tf.Tensor:
        if wanted is None:
            return images
        maps = tf.tile(wanted[:, None, None, :], [1, images.shape[1], images.shape[2], 1])
        return tf.concat([images, maps], axis=3)

    def train_step(self, batch: tf.Tensor | tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, wanted = batch if self.classes else (batch, None)
        n = tf.shape(images)[0]
        made = self.generator(self._drawn(wanted, n))
        both = tf.concat([self._shown(made, wanted), self._shown(images, wanted)], axis=0)
        labels = tf.concat([tf.ones((n, 1)), tf.zeros((n, 1))], axis=0)
        labels += self.blur * tf.random.uniform(tf.shape(labels))
        with tf.GradientTape() as tape:
            told = self.entropy(labels, self.discriminator(both))
        weights = self.discriminator.trainable_weights
        self.discriminator_optimizer.apply(tape.gradient(told, weights), weights)
        with tf.GradientTape() as tape:
            made = self.generator(self._drawn(wanted, n))
            fooled = self.entropy(tf.zeros((n, 1)), self.discriminator(self._shown(made, wanted)))
        weights = self.generator.trainable_weights
        self.generator_optimizer.apply(tape.gradient(fooled, weights), weights)
        return {"discriminator": told, "generator": fooled}

    def make(self, n: int) -> np.ndarray:
        wanted = np.eye(self.classes, dtype=np.float32)[np.arange(n) % self.classes] if self.classes else None
        images = self.generator.predict(self._drawn(wanted, n), batch_size=CHUNK, verbose=0)
        return images / 2 + 0.5 if self.signed else images


class TutorialGan(Gan):
    """As tensorflow.org trains it: real images labelled 1, noise drawn once, and both networks updated at once."""

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        n = tf.shape(images)[0]
        with tf.GradientTape() as telling, tf.GradientTape() as fooling:
            made = self.generator(self._drawn(None, n), training=True)
            real, fake = (self.discriminator(each, training=True) for each in (images, made))
            told = self.entropy(tf.ones((n, 1)), real) + self.entropy(tf.zeros((n, 1)), fake)
            fooled = self.entropy(tf.ones((n, 1)), fake)
        for tape, loss, network, optimizer in (
            (fooling, fooled, self.generator, self.generator_optimizer),
            (telling, told, self.discriminator, self.discriminator_optimizer),
        ):
            optimizer.apply(tape.gradient(loss, network.trainable_weights), network.trainable_weights)
        return {"discriminator": told, "generator": fooled}


def cgan() -> tuple[Gan, float, int]:
    """Model, learning rate and batch size of the conditional GAN."""
    generator = keras.Sequential(
        [
            keras.Input((128 + 10,)),
            layers.Dense(7 * 7 * (128 + 10)),
            layers.LeakyReLU(0.2),
            layers.Reshape((7, 7, 128 + 10)),
            layers.Conv2DTranspose(128, 4, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Conv2DTranspose(128, 4, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Conv2D(1, 7, padding="same", activation="sigmoid"),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1 + 10)),
            layers.Conv2D(64, 3, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Conv2D(128, 3, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ]
    )
    return Gan(generator, discriminator, 128, classes=10), 3e-4, 64


def dcgan_digits() -> tuple[Gan, float, int]:
    """Model, learning rate and batch size of the convolutional GAN for 28x28."""
    stages: list[layers.Layer] = []
    for filters, strides in ((128, 1), (64, 2)):
        stages += [
            layers.Conv2DTranspose(filters, 5, strides=strides, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
        ]
    generator = keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(7 * 7 * 256, use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Reshape((7, 7, 256)),
            *stages,
            layers.Conv2DTranspose(1, 5, strides=2, padding="same", use_bias=False, activation="tanh"),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(64, 5, strides=2, padding="same"),
            layers.LeakyReLU(),
            layers.Dropout(0.3),
            layers.Conv2D(128, 5, strides=2, padding="same"),
            layers.LeakyReLU(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    return TutorialGan(generator, discriminator, 100, signed=True), 1e-4, 256


def dcgan_faces() -> tuple[Gan, float, int]:
    """Model, learning rate and batch size of the convolutional GAN for 64x64."""
    rising: list[layers.Layer] = []
    for filters in (128, 256, 512):
        rising += [layers.Conv2DTranspose(filters, 4, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    generator = keras.Sequential(
        [
            keras.Input((128,)),
            layers.Dense(8 * 8 * 128),
            layers.Reshape((8, 8, 128)),
            *rising,
            layers.Conv2D(3, 5, padding="same", activation="sigmoid"),
        ]
    )
    falling: list[layers.Layer] = []
    for filters in (64, 128, 128):
        falling += [layers.Conv2D(filters, 4, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    discriminator = keras.Sequential(
        [keras.Input((64, 64, 3)), *falling, layers.Flatten(), layers.Dropout(0.2), layers.Dense(1)]
    )
    return Gan(generator, discriminator, 128, blur=0.05), 1e-4, 32


def train(task: Task) -> None:
    """Builds, trains and writes what was made."""
    keras.utils.set_random_seed(task.seed)
    model: Vae | Gan
    if task.model == "vae":
        model, batch = Vae(), 128
        model.compile(optimizer=keras.optimizers.Adam())
    else:
        build = {"cgan": cgan, "dcgan": dcgan_digits if task.train.shape[1] == 28 else dcgan_faces}[task.model]
        model, rate, batch = build()
        model.compile(rate)
    scaled = task.train.astype(np.float32) / 255
    if isinstance(model, Gan) and model.signed:
        scaled = scaled * 2 - 1
    labelled = isinstance(model, Gan) and model.classes
    arrays = (scaled, np.eye(10, dtype=np.float32)[task.labels]) if labelled else scaled
    images = tf.data.Dataset.from_tensor_slices(arrays).shuffle(len(scaled)).batch(batch, drop_remainder=True)
    watch = Stopwatch(task.minutes, batch)
    model.fit(images.prefetch(tf.data.AUTOTUNE), epochs=1_000_000, callbacks=[watch], verbose=0)
    networks = (model.encoder, model.decoder) if isinstance(model, Vae) else (model.generator, model.discriminator)
    rebuilt = model.rebuild(task.test.astype(np.float32) / 255) if isinstance(model, Vae) else None
    parameters = sum(network.count_params() for network in networks)
    write_made(task, model.make(task.samples), rebuilt, watch.budget, watch.seconds, parameters)


if __name__ == "__main__":
    train(read_task())
