"""The recipes by name. Nothing here imports Keras."""

from training.recipes.base import Recipe
from training.recipes.cnn import CNN, CNNSequential
from training.recipes.digit_sum import DigitSum
from training.recipes.digits import Digits
from training.recipes.fashion import Fashion
from training.recipes.gan import GarmentGAN
from training.recipes.inception import InceptionV3
from training.recipes.mlp import MLP
from training.recipes.multi_head import MultiHead
from training.recipes.resnet import ResNet50, ResNet101, ResNet152, ResNetSmall
from training.recipes.two_view import TwoView
from training.recipes.unet import UNet
from training.recipes.vgg import VGG16, VGG19
from training.recipes.vit import ViTB16, ViTSmall

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Digits(),
        Fashion(),
        MLP(),
        CNNSequential(),
        CNN(),
        ResNetSmall(),
        ViTSmall(),
        TwoView(),
        MultiHead(),
        DigitSum(),
        UNet(),
        GarmentGAN(),
        VGG16(),
        VGG19(),
        ResNet50(),
        ResNet101(),
        ResNet152(),
        InceptionV3(),
        ViTB16(),
    )
}

# Of the runs in docs/models.md, on one core.
MINUTES = {
    "digits": 0.2,
    "fashion": 1.8,
    "resnet_small": 20.3,
    "vit_small": 24.1,
    "two_view": 1.0,
    "digit_sum": 0.5,
    "gan": 16.5,
    "unet": 2.5,
}

__all__ = ["MINUTES", "RECIPES", "Recipe"]
