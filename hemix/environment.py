"""What is installed, what the machine has, which kernels are used and how to get the others."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from hemix.measure import machine

__all__ = ["examine"]

_EXTRAS = {
    "fbgemm_gpu": ("fbgemm-gpu-cpu", "fast"),
    "starlette": ("starlette", "serve"),
    "redis": ("redis", "redis"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "lightgbm": ("lightgbm", "baselines"),
    "pyspark": ("pyspark", "spark"),
    "tensorboard": ("tensorboard", "dev"),
}


def examine() -> dict[str, Any]:
    """JSON-able facts: versions, machine, devices, kernels, extras with the command to install
    them.
    """
    return {
        "hemix": version("hemix"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "pyarrow": version("pyarrow"),
        "machine": machine(),
        "devices": [
            "cpu",
            *(
                f"cuda:{i} {torch.cuda.get_device_name(i)}"
                for i in range(torch.cuda.device_count())
            ),
        ],
        "kernels": {
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
            "bf16_matmul": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
            "tables": _embedding_backend(),
        },
        "extras": {
            package: _extra(module, package, extra) for module, (package, extra) in _EXTRAS.items()
        },
    }


def _embedding_backend() -> str:
    if importlib.util.find_spec("fbgemm_gpu") is None:
        return f"PyTorch; FBGEMM: {_extra('fbgemm_gpu', *_EXTRAS['fbgemm_gpu'])}"
    return (
        "FBGEMM for train.table_optimizer=rowwise_adagrad on the CPU; otherwise, or with "
        "train.embedding_backend=torch, PyTorch"
    )


def _extra(module: str, package: str, extra: str) -> str:
    if importlib.util.find_spec(module) is None:
        return f"not installed: pip install 'hemix[{extra}]'"
    try:
        return version(package)
    except PackageNotFoundError:
        return "installed"
