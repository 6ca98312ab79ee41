"""Trunkline against NIXL on the same work, side by side in one run: ``python -m benchmarks``.

Absolute figures of one machine swing; ratios of rounds that alternate between the two hold better.
"""
