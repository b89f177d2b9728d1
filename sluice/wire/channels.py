"""What every gRPC channel of ours is opened with; a client adds what is its own."""

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),  # gRPC's 4 MB is less than a batch of feature maps
    ("grpc.max_send_message_length", -1),
    # A server that comes back is found within a second, not after two minutes of backoff.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
