"""The benchmark behind ``trunkline bench``: workers that measure transfers by block and batch size."""
