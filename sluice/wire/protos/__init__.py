"""The wire: our own message classes for TensorFlow Serving's API, with no TensorFlow behind them.

The .proto files beside this one carry TensorFlow Serving's real names, so reflection, text files
and `Any` work as they do there. Their descriptors live in POOL, a pool of our own: two files that
define `tensorflow.TensorProto` cannot share protobuf's default pool, and ours must get along with
tensorflow and the official stubs in one process, whichever is imported first.

`make protos` generates the *_pb2 modules (`generate.py`); a test generates them again and compares.
"""

from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
for _well_known in (any_pb2, wrappers_pb2):
    POOL.AddSerializedFile(_well_known.DESCRIPTOR.serialized_pb)
