"""KV-cache workloads: what models keep per token, how ranks divide it, and what a request moves between them.

Planning is pure: shapes, splits, request lengths and traffic matrices in, lists of blocks out.
"""
