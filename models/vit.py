"""Vision Transformer: an image as a sequence of patches, and attention between them.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv:2010.11929), figure 1 and table 1:
ViT-B/16 has 86,567,656 parameters at 224x224x3 and 1000 classes.
"""

import keras
from keras import layers

from models.preprocessing import preprocess as preprocessed
from models.shapes import require_multiple

_LAYER_NORM_EPSILON = 1e-6


@keras.saving.register_keras_serializable("sluice")
class ClassToken(layers.Layer):  # type: ignore[misc]
    """[N, patches, width] -> [N, 1 + patches, width]: a learnt token before the patches."""

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        self.token = self.add_weight(
            shape=(1, 1, input_shape[-1]), initializer="zeros", name="token"
        )

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1)


@keras.saving.register_keras_serializable("sluice")
class PositionEmbedding(layers.Layer):  # type: ignore[misc]
    """[N, tokens, width] plus a learnt vector per position."""

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        self.embedding = self.add_weight(
            shape=(1, *input_shape[1:]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="embedding",
        )

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x + self.embedding


def vit_b16(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    *,
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_width: int = 3072,
    dropout: float = 0.1,
    preprocess: str = "tf",
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    patch: side of a patch; H and W must be multiples of it.
    width: channels of a token, a multiple of `heads`.
    depth: encoder blocks.
    heads: of each block's attention.
    mlp_width: channels between a block's two dense layers.
    preprocess: a mode of `models.preprocessing`.
    Raises ValueError for a size that patches do not fill.

    >>> vit_b16((28, 28, 1), 10, patch=7, width=8, depth=1, heads=2, mlp_width=8).output_shape
    (None, 10)
    """
    require_multiple(input_shape, patch, "vit_b16")
    image = keras.Input(input_shape, name="image")  # [N, 224, 224, 3]
    x = preprocessed(image, preprocess)
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(x)  # [N, 14, 14, 768]
    x = layers.Reshape((-1, width), name="sequence")(x)  # [N, 196, 768]
    x = ClassToken(name="class_token")(x)  # [N, 197, 768]
    x = PositionEmbedding(name="position")(x)
    x = layers.Dropout(dropout, name="position_dropout")(x)
    for block in range(1, depth + 1):
        x = _encoder_block(x, heads, mlp_width, dropout, name=f"block{block}")
    x = layers.LayerNormalization(epsilon=_LAYER_NORM_EPSILON, name="norm")(x)
    x = x[:, 0]  # [N, 768]
    label = layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    return keras.Model(image, label, name="vit_b16")


def _encoder_block(
    x: keras.KerasTensor, heads: int, mlp_width: int, dropout: float, name: str
) -> keras.KerasTensor:
    """Figure 1, right: [N, tokens, width] -> the same shape."""
    width = x.shape[-1]
    skip = x
    x = layers.LayerNormalization(epsilon=_LAYER_NORM_EPSILON, name=f"{name}_norm1")(x)
    x = layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(x, x)
    x = layers.Dropout(dropout, name=f"{name}_attention_dropout")(x)
    x = skip = layers.Add(name=f"{name}_add1")([skip, x])
    x = layers.LayerNormalization(epsilon=_LAYER_NORM_EPSILON, name=f"{name}_norm2")(x)
    x = layers.Dense(mlp_width, activation="gelu", name=f"{name}_mlp1")(x)
    x = layers.Dropout(dropout, name=f"{name}_mlp1_dropout")(x)
    x = layers.Dense(width, name=f"{name}_mlp2")(x)
    x = layers.Dropout(dropout, name=f"{name}_mlp2_dropout")(x)
    return layers.Add(name=f"{name}_out")([skip, x])
