"""U-Net: down four times, up four times, and at every size a skip across.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation"
(arXiv:1505.04597), figure 1: 31,030,658 parameters at 1 channel in and 2 classes out.
"""

import keras
from keras import layers

from models.shapes import require_multiple


def unet(
    input_shape: tuple[int, int, int] = (512, 512, 1),
    classes: int = 2,
    *,
    width: int = 64,
    depth: int = 4,
    dropout: float = 0.5,
    padding: str = "same",
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> mask [N, H, W, classes], a distribution over classes per pixel.

    width: channels at full size; they double at every size below.
    depth: how often H and W are halved; both must be multiples of 2**depth.
    dropout: at the bottom, the end of the paper's contracting path.
    padding: "same" keeps the size, so that the mask lies on the image; "valid" is the paper's own,
        with cropped skips: [N, 572, 572, 1] -> [N, 388, 388, 2].
    Raises ValueError for a size that cannot be halved so often.

    >>> unet((32, 32, 3), width=4, depth=2).output_shape
    (None, 32, 32, 2)
    """
    if padding == "same":
        require_multiple(input_shape, 2**depth, "unet")
    image = keras.Input(input_shape, name="image")  # [N, 512, 512, 1]
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    skips = []
    for level in range(1, depth + 1):
        x = _double_conv(x, width * 2 ** (level - 1), padding, name=f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    x = _double_conv(x, width * 2**depth, padding, name="bottom")  # [N, 32, 32, 1024]
    x = layers.Dropout(dropout, name="bottom_dropout")(x)
    for level in range(depth, 0, -1):
        x = _up_join(x, skips[level - 1], width * 2 ** (level - 1), name=f"up{level}")
        x = _double_conv(x, width * 2 ** (level - 1), padding, name=f"up{level}")
    mask = layers.Conv2D(classes, 1, activation="softmax", dtype="float32", name="mask")(x)
    return keras.Model(image, mask, name="unet")


def _double_conv(x: keras.KerasTensor, filters: int, padding: str, name: str) -> keras.KerasTensor:
    """[N, H, W, C] -> [N, H, W, filters]; 4 rows and columns fewer when padding is "valid"."""
    for conv in (1, 2):
        x = layers.Conv2D(
            filters,
            3,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"{name}_conv{conv}",
        )(x)
    return x


def _up_join(
    x: keras.KerasTensor, skip: keras.KerasTensor, filters: int, name: str
) -> keras.KerasTensor:
    """[N, H, W, C] and a skip at least twice as large -> [N, 2 H, 2 W, 2 * filters]."""
    x = layers.Conv2DTranspose(
        filters, 2, strides=2, kernel_initializer="he_normal", name=f"{name}_conv_transpose"
    )(x)
    margins = [(skip.shape[axis] - x.shape[axis]) // 2 for axis in (1, 2)]
    if any(margins):
        skip = layers.Cropping2D(margins, name=f"{name}_crop")(skip)
    return layers.Concatenate(name=f"{name}_skip")([skip, x])
