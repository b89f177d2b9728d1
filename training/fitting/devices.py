"""What a run computes on: one device, every GPU of this machine, or several machines."""

import os

import tensorflow as tf

from training.errors import BadSetting, NoGpu
from training.recipes import Recipe

GPUS_VARIABLE = "SLUICE_GPUS"


def strategy_for(recipe: Recipe) -> tf.distribute.Strategy:
    """By TF_CONFIG (several machines), else by the GPUs in sight.

    To be called before TensorFlow has done anything else, which several machines need.
    Raises BadSetting and NoGpu, by $SLUICE_GPUS: a run that was given a GPU and does not see it
    would take days for what should take hours, and hold the GPU all the while.
    """
    _check_gpus(os.environ.get(GPUS_VARIABLE, "0"))
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _check_gpus(promised: str) -> None:
    if not promised.isdecimal():
        raise BadSetting(
            f"{GPUS_VARIABLE} is {promised!r}: expected the number of GPUs that the run must see"
        )
    seen = len(tf.config.list_physical_devices("GPU"))
    if seen < int(promised):
        raise NoGpu(
            f"TensorFlow sees {seen} of the {promised} GPUs that {GPUS_VARIABLE} promises: train "
            f"in the image sluice-training-gpu, or with tensorflow[and-cuda] installed, where "
            f"nvidia-smi lists them, or unset {GPUS_VARIABLE}"
        )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the machine that reports and publishes: worker 0.

    >>> is_chief(tf.distribute.get_strategy())  # the one machine there is
    True
    """
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_id == 0 and "chief" not in resolver.cluster_spec().as_dict()
    )


def meet(strategy: tf.distribute.Strategy) -> None:
    """Wait for the other machines, since one that leaves early is taken for one that crashed."""
    if strategy.cluster_resolver is not None:
        meeting = tf.function(
            lambda: strategy.run(
                lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.ones([]))
            )
        )
        meeting()
