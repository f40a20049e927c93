#!/usr/bin/env python3
"""The installed folder runs after it was moved, from its own copies of the libraries, without the build's environment.

    python3 tests/app/installed.py CMAKE BUILD_DIR
"""
import pathlib
import subprocess
import sys
import tempfile

cmake, build = sys.argv[1:]
with tempfile.TemporaryDirectory() as name:
    first, moved = pathlib.Path(name, "first"), pathlib.Path(name, "moved")
    subprocess.run([cmake, "--install", build, "--prefix", first], check=True, stdout=subprocess.DEVNULL)
    first.rename(moved)
    env = {"PATH": "/usr/bin:/bin", "HOME": name}
    said = subprocess.run([moved / "prefillbench", "list", "methods"], env=env, capture_output=True, text=True)
    assert said.returncode == 0 and "flexprefill" in said.stdout, said.stdout + said.stderr
    libraries = subprocess.run(["ldd", moved / "prefillbench"], env=env, capture_output=True, text=True, check=True).stdout
    torch = [line for line in libraries.splitlines() if "libtorch_cpu" in line]
    assert torch and str(moved / "lib") in torch[0], libraries
    assert (moved / "share/draw.py").is_file()
print("the installed folder runs where it was moved to")
