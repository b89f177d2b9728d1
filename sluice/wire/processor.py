"""What the CPU computes in, as Linux says."""

import os
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16_INSTRUCTIONS = re.compile(rb"^flags\b.*\s(avx512_bf16|amx_bf16)\b", re.M)
# What oneDNN can be held to that has none of them (ONEDNN_MAX_CPU_ISA; its documentation has the
# list).
_WITHOUT = {
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
}
_OFF = ("0", "false")  # as TensorFlow reads a variable that is yes or no


def computes_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU has instructions for it, and TensorFlow uses them: nothing in the environment
    keeps oneDNN from it. Where nobody says so, as elsewhere than on Linux, it does not.

    >>> computes_bfloat16(Path("no-such-file"))
    False
    """
    held_to = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper().removeprefix("DNNL_")
    if held_to in _WITHOUT or os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in _OFF:
        return False
    try:
        return bool(_BFLOAT16_INSTRUCTIONS.search(cpuinfo.read_bytes()))
    except OSError:
        return False
