"""The main job between real processes: a paged KV cache, a death and a return."""
