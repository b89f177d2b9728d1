"""What an architecture asks of its input's shape."""


def require_multiple(input_shape: tuple[int, int, int], of: int, model: str) -> None:
    """Raises ValueError unless height and width are multiples of `of`.

    >>> require_multiple((28, 30, 1), 7, "vit_b16")
    Traceback (most recent call last):
    ValueError: vit_b16: height and width must be multiples of 7, not 28x30
    """
    height, width, _ = input_shape
    if height % of or width % of:
        raise ValueError(
            f"{model}: height and width must be multiples of {of}, not {height}x{width}"
        )
