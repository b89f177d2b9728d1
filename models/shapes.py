"""What an architecture asks of its input's shape."""


def require_multiple(input_shape: tuple[int, int, int], of: int, model: str) -> None:
    """Raise ValueError unless height and width are multiples of `of`."""
    height, width, _ = input_shape
    if height % of or width % of:
        raise ValueError(
            f"{model}: height and width must be multiples of {of}, not {height}x{width}"
        )
