"""The dataset of a store: cells, lazy passes over its models, export, failures."""
