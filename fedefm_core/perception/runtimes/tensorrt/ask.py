# SPDX-License-Identifier: Apache-2.0
"""Run as a script: what GPU, driver and TensorRT are here, as one line of JSON.

    python ask.py MODULE run|build

It stands alone and imports nothing of ours, so that it answers fast, and whatever it touches can
end no process but its own. 'run' touches TensorRT only where a GPU is.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys

COMPUTE_CAPABILITY = (75, 76)  # major, minor: attributes of CUDA's cuDeviceGetAttribute
ANSWER: dict[str, object] = {
    "gpu": "",
    "compute_capability": "",
    "driver": "",
    "gpu_trouble": "",
    "version": "",
    "import_trouble": "",
    "builds_for": [],
}


def find_gpu() -> dict[str, str]:
    """Name, compute capability and driver of the first GPU, or gpu_trouble."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"gpu_trouble": "there is no NVIDIA driver (libcuda.so.1) on this machine"}
    code = cuda.cuInit(0)
    if code:
        return {"gpu_trouble": f"the NVIDIA driver finds no GPU it can use (CUDA error {code})"}
    device, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0 or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return {"gpu_trouble": "the NVIDIA driver finds no GPU"}
    name, version = ctypes.create_string_buffer(256), ctypes.c_int()
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    capability = []
    for attribute in COMPUTE_CAPABILITY:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    return {
        "gpu": name.value.decode(errors="replace"),
        "compute_capability": ".".join(capability),
        "driver": driver_version() or f"CUDA {version.value // 1000}.{version.value % 1000 // 10}",
    }


def driver_version() -> str:
    """The driver's own version, such as 580.65.06; '' where it does not tell (Jetson)."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    text = ctypes.create_string_buffer(96)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return ""
    return text.value.decode(errors="replace")


def find_tensorrt(module: str, touch: bool) -> dict[str, object]:
    """Its version, or import_trouble; and the compute capabilities that it says it builds for.

    touch: also make a runtime, which needs a driver.
    """
    try:
        trt = importlib.import_module(module)
        if touch:
            trt.Runtime(trt.Logger(trt.Logger.ERROR))
        names = dir(getattr(trt, "ComputeCapability", None))
        digits = [name[2:] for name in names if name.startswith("SM") and name[2:].isdigit()]
        return {
            "version": str(trt.__version__),
            "builds_for": [f"{d[:-1]}.{d[-1]}" for d in digits],
        }
    except Exception as error:  # whatever it is, it is what a person has to know
        return {"import_trouble": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Print the answer."""
    module, purpose = sys.argv[1:]
    answer: dict[str, object] = {**ANSWER, **find_gpu()}
    if not answer["gpu_trouble"] or purpose == "build":
        answer.update(find_tensorrt(module, touch=not answer["gpu_trouble"]))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules are named like libraries
    main()
