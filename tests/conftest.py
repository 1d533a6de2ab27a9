"""Strict settings for every test: no silent promotion, float64 on, eight virtual devices.

With one device some sums are computed otherwise. SOFTMAXX_TEST_DEVICES=1 tests that.

Compiling is most of the suite's time. So what took long to compile is kept in pytest's cache, and
the tests that share programs run on one worker: those of a file, or those of one registry entry.
"""

import gc
import os
from collections import Counter

import jax
import pytest

jax.config.update("jax_num_cpu_devices", int(os.environ.get("SOFTMAXX_TEST_DEVICES", "8")))
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """Keeps compiled programs in pytest's cache, for other workers and the next run."""
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Names the group of each test, which runs on one worker, and puts groups one after the other.

    What is compiled without most optimizations comes first, so that each worker changes over once.
    Then files with many tests come first. The groups of one registry entry are small and come last:
    they keep both workers busy to the end.
    """
    sizes = Counter(map(_group, items))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(
        key=lambda item: (
            not _unoptimized(item),
            _contract(item) is not None,
            -sizes[_group(item)],
            _group(item),
        )
    )


def pytest_runtest_setup(item):
    """The tests of a file with the marker `unoptimized` are compiled without most optimizations."""
    jax.config.update("jax_disable_most_optimizations", _unoptimized(item))


def pytest_runtest_teardown(item, nextitem):
    """Forgets the programs that are compiled otherwise than the next test wants them."""
    if nextitem is not None and _unoptimized(item) != _unoptimized(nextitem):
        jax.clear_caches()
    if nextitem is not None and _group(item) != _group(nextitem):
        gc.freeze()  # what is kept for later tests need not be searched for garbage again and again


def _unoptimized(item) -> bool:
    return item.get_closest_marker("unoptimized") is not None


def _contract(item):
    callspec = getattr(item, "callspec", None)
    return callspec and callspec.params.get("contract")


def _group(item) -> str:
    file = item.path.relative_to(item.config.rootpath).as_posix()
    contract = _contract(item)
    return f"{file} {contract.name}" if contract else file
