import numpy as np

import models

PIXELS = np.random.default_rng(0).uniform(0, 255, (5, 28, 28, 1)).astype("float32")


def test_both_spellings_give_the_same_outputs_to_the_bit() -> None:
    stack = models.build("cnn_sequential", (28, 28, 1))
    graph = models.build("cnn_functional", (28, 28, 1))
    graph.set_weights(stack.get_weights())
    assert (stack.predict(PIXELS, verbose=0) == graph.predict(PIXELS, verbose=0)).all()


def test_any_input_shape() -> None:
    for shape in [(8, 8, 1), (31, 17, 3), (28, 28, 4)]:
        model = models.build("cnn_functional", shape, 3)
        assert model(np.zeros((2, *shape), "float32")).shape == (2, 3)
