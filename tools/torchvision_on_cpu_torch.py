#!/usr/bin/env python3
"""Make the CUDA-linked torchvision wheel of the package index load beside a CPU build of torch.

That wheel links libcudart, libc10_cuda and libtorch_cuda, which a CPU torch lacks, so that `import torchvision` ends
with "operator torchvision::nms does not exist". This compiles three stub libraries with just the missing names (none
is called for tensors on a CPU) and writes a .pth file that loads them when the interpreter starts. It needs gcc and nm,
and does nothing where torch ships libc10_cuda.so. Run it with the python of the environment to change.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_paths()["platlib"])
VISION, TORCH = SITE / "torchvision", SITE / "torch" / "lib"
STUB = SITE / "torchvision_cpu_stub"

LOADER = """\
import ctypes, os
_d = os.path.dirname(__file__)
if not os.path.exists(os.path.join(_d, '..', 'torch', 'lib', 'libc10_cuda.so')):
    for _n in ({runtime!r}, 'libc10_cuda.so', 'libtorch_cuda.so'):
        ctypes.CDLL(os.path.join(_d, _n), mode=ctypes.RTLD_GLOBAL)
"""


def list_symbols(path: Path, kind: str) -> set[str]:
    """Return the dynamic symbols of a library; `kind` is the option of nm that selects them."""
    out = subprocess.run(["nm", "-D", kind, str(path)], capture_output=True, text=True).stdout
    return {line.split()[-1] for line in out.splitlines() if line.split()}


def build_stub(name: str, source: str, *options: str) -> None:
    """Compile one stub library."""
    (STUB / "stub.c").write_text(source)
    command = ["gcc", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-o", str(STUB / name), str(STUB / "stub.c")]
    subprocess.run([*command, *options], check=True)


def make_c10_source(names: set[str]) -> str:
    """Return C source of stubs of c10::cuda and at::cuda: no device is present, and all other calls end the process."""
    lines = ["#include <stdlib.h>"]
    for name in sorted(names):
        if name.endswith("9allocatorE"):
            lines.append(f"void *{name}[4];")
        elif "device_count" in name:
            lines.append(f"signed char {name}(void){{return 0;}}")
        else:
            lines.append(f"void {name}(void){{abort();}}")
    return "\n".join(lines) + "\n"


def make_cudart_source(names: set[str]) -> str:
    """Return C source of stubs of the CUDA runtime: kernels register, other calls return cudaErrorNoDevice (100)."""
    lines = ["#include <stddef.h>", "static void *h;"]
    for name in sorted(names):
        registers = "RegisterFatBinary" in name and "End" not in name and "Un" not in name
        lines.append(f"void *{name}(void){{return &h;}}" if registers else f"int {name}(void){{return 100;}}")
    return "\n".join(lines) + "\n"


def main() -> None:
    if not VISION.is_dir() or not TORCH.is_dir():
        sys.exit(f"torch or torchvision is not installed in {SITE}; install both first")
    if (TORCH / "libc10_cuda.so").exists():
        print("torch has CUDA libraries; nothing to do")
        return
    if missing := [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]:
        print(f"{' and '.join(missing)} not found: torchvision is left as it is, and does not load beside a CPU torch")
        return
    undefined = set().union(*(list_symbols(path, "--undefined-only") for path in VISION.glob("*.so")))
    runtime = next((name.split("@")[-1] for name in undefined if "@libcudart" in name), "libcudart.so.13")
    cudart = {name.split("@")[0] for name in undefined if "@libcudart" in name}
    defined = set()
    for path in TORCH.glob("*.so*"):
        defined |= {name.split("@")[0] for name in list_symbols(path, "--defined-only")}
    plain = {name for name in undefined if "@" not in name}
    c10 = {name for name in plain - defined if re.match(r"_ZNK?(3c10|2at)4cuda", name)}
    STUB.mkdir(exist_ok=True)
    build_stub("libc10_cuda.so", make_c10_source(c10))
    build_stub("libtorch_cuda.so", "int torchvision_cpu_stub_unused;\n")
    (STUB / "v.map").write_text(f"{runtime} {{ global: *; }};\n")
    build_stub(runtime, make_cudart_source(cudart), f"-Wl,--version-script,{STUB / 'v.map'}")
    (STUB / "__init__.py").write_text(LOADER.format(runtime=runtime))
    (SITE / "torchvision_cpu_stub.pth").write_text("import torchvision_cpu_stub\n")
    print(f"stubbed {len(c10)} names of c10 and at::cuda and {len(cudart)} of cudart in {STUB}")


if __name__ == "__main__":
    main()
