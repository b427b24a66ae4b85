"""The memory allocator of the process: an option for programs whose steps all need the same large arrays."""

import ctypes
import platform

# names of malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Keep freed memory in the process for the next array of its size, instead of giving it back to the system.

    On Linux with glibc every array over 32 MB is otherwise mapped afresh, page by page, each time a layer makes
    it; without that, layers written in plain torch are two to three times faster. The price: resident memory
    stays at its peak until the process ends. That is for programs to decide, so nothing in graphfm calls this on
    import; its commands do. Arrays made before are not affected.

    Returns
    -------
    Whether it was done; elsewhere than with glibc nothing is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # one arena: in those of further threads the other two settings have no effect
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    done = [mallopt(name, value) == 1 for name, value in settings]
    return all(done)


def give_back_freed_memory() -> None:
    """Return to the system what was freed and is kept; what is freed later is kept again."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
