"""The campaign engine: a file becomes a grid, the grid tiles, tiles tasks, and tasks write Zarr chunks.

Data flow one way in four hops: `run` (the driver) hands tasks to an executor, the executor to a worker,
the worker computes whole tiles and writes them to the store; only small receipts come back, and the driver
appends them to the ledger. Resuming a campaign is planning it again from the ledger.
"""
