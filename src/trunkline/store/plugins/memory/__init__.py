"""``memory://NAME``: a store inside this process, with etcd's semantics: the model of the etcd plug-in."""

from trunkline.store.plugins.memory.store import open_store as open_store
