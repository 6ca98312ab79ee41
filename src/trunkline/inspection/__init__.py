"""Looking into a deployment: who is there, what they publish, whether they answer, what is wrong, what is left over.

Nothing here writes to the store, but for :func:`trunkline.inspection.garbage.collect`.
"""
