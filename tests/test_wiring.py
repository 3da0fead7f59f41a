"""What the process is told before it begins."""

import platform
import subprocess
import sys

import pytest

HEAPS = """
import ctypes, sys, threading
from tiled_ingest import wiring
if sys.argv[1] == "given back":
    wiring._give_memory_back()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.fdopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
number = int(sys.argv[2])
together = threading.Barrier(number)

def work():
    together.wait()
    libc.free(libc.malloc(100_000))
    together.wait()

threads = [threading.Thread(target=work) for _ in range(number)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


def heaps(argument: str, threads: int) -> int:
    command = [sys.executable, "-c", HEAPS, argument, str(threads)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other ways")
def test_what_threads_have_freed_is_free_for_all() -> None:
    assert heaps("by default", 6) > heaps("by default", 1)
    assert heaps("given back", 6) == heaps("given back", 1)
