"""Strict settings for every test: no silent rank or dtype promotion, float64 on, eight virtual devices."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_modifyitems(items):
    """One worker for all tests of a contract: most of the time goes into compiling, and they share what is compiled."""
    for item in items:
        contract = getattr(item, "callspec", None) and item.callspec.params.get("contract")
        if contract:
            item.add_marker(pytest.mark.xdist_group(contract.name))
