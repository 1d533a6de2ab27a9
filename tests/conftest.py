"""Strict settings for every test: no silent rank or dtype promotion, float64 on, eight virtual devices."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """Most of the time goes into compiling: what took long is kept in pytest's cache, for other workers and the next run."""
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


def pytest_collection_modifyitems(items):
    """One worker for all tests of a contract: they share what is compiled."""
    for item in items:
        contract = _contract(item)
        if contract:
            item.add_marker(pytest.mark.xdist_group(contract.name))


def pytest_runtest_teardown(item, nextitem):
    """Forgets what was compiled for the tests of a file or a contract: a process may not map more than some 10,000 programs."""
    if nextitem is not None and (item.module, _contract(item)) != (
        nextitem.module,
        _contract(nextitem),
    ):
        jax.clear_caches()


def _contract(item):
    return getattr(item, "callspec", None) and item.callspec.params.get("contract")
