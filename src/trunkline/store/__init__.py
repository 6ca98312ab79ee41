"""Stores: one contract (:mod:`trunkline.store.contract`), its plug-ins, and :func:`open_store` to find them."""

from trunkline.store.registry import open_store as open_store
