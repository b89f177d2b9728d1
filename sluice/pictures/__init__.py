"""What a picture is (docs/contract.md), once, for whoever reads files without TensorFlow.

Training and the gateway both bring a file here to what the published graph reads.
`training.decoding` is the same rules in TensorFlow's ops, and tests/pictures holds the two equal.
"""
