"""AC-GAN: a generator that draws what it is asked for, and a discriminator with two heads.

Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs"
(arXiv:1610.09585). The discriminator says whether an image is real and of which class it is, so
its class head is a classifier too.
"""

import keras
from keras import layers

from models.adversarial import GAN
from models.shapes import require_multiple


def gan(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    latent: int = 100,
    width: int = 64,
    dropout: float = 0.3,
) -> GAN:
    """Both players, to be trained together.

    input_shape: of an image; H and W are multiples of 4.
    latent: length of the noise.
    width: channels at half size; twice as many at a quarter.
    dropout: in the discriminator.
    Raises ValueError for another size.

    >>> players = gan((8, 8, 1), classes=3, latent=5, width=4).parts
    >>> players["generator"].input_shape, players["generator"].output_shape
    ([(None, 5), (None,)], (None, 8, 8, 1))
    >>> {name: head.shape for name, head in players["discriminator"].output.items()}
    {'real': (None, 1), 'label': (None, 3)}
    """
    require_multiple(input_shape, 4, "gan")
    return GAN(
        _generator(input_shape, classes, latent, width),
        _discriminator(input_shape, classes, width, dropout),
    )


def _generator(
    input_shape: tuple[int, int, int], classes: int, latent: int, width: int
) -> keras.Model:
    """noise [N, latent] and label [N] (int32) -> image [N, H, W, C] of 0..255."""
    height, breadth, channels = input_shape
    noise = keras.Input((latent,), name="noise")
    label = keras.Input((), dtype="int32", name="label")
    wanted = layers.Embedding(classes, latent, name="wanted")(label)  # [N, 100]
    x = layers.Multiply(name="seed")([noise, wanted])
    x = layers.Dense(height // 4 * (breadth // 4) * 2 * width, name="ground")(x)
    x = layers.Reshape((height // 4, breadth // 4, 2 * width), name="canvas")(x)  # [N, 7, 7, 128]
    for block, filters in enumerate((2 * width, width), start=1):
        x = layers.BatchNormalization(name=f"up{block}_bn")(x)
        x = layers.Activation("relu", name=f"up{block}_relu")(x)
        x = layers.Conv2DTranspose(filters, 4, 2, "same", name=f"up{block}_conv_transpose")(x)
    x = layers.LeakyReLU(0.2, name="up_out")(x)  # [N, 28, 28, 64]
    x = layers.Conv2D(channels, 5, padding="same", name="ink")(x)
    x = layers.Activation("tanh", dtype="float32", name="ink_tanh")(x)
    image = layers.Rescaling(127.5, offset=127.5, dtype="float32", name="image")(x)
    return keras.Model([noise, label], image, name="generator")


def _discriminator(
    input_shape: tuple[int, int, int], classes: int, width: int, dropout: float
) -> keras.Model:
    """image [N, H, W, C] of 0..255 -> real [N, 1] in 0..1, and label [N, classes]."""
    image = keras.Input(input_shape, name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(image)
    for block, filters in enumerate((width, 2 * width), start=1):
        x = layers.Conv2D(filters, 4, strides=2, padding="same", name=f"down{block}_conv")(x)
        x = layers.LeakyReLU(0.2, name=f"down{block}_relu")(x)
        x = layers.Dropout(dropout, name=f"down{block}_dropout")(x)
    x = layers.Flatten(name="flatten")(x)  # [N, 7 * 7 * 128]
    outputs = {
        "real": layers.Dense(1, activation="sigmoid", dtype="float32", name="real")(x),
        "label": layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x),
    }
    return keras.Model(image, outputs, name="discriminator")
