"""The figures of a sweep and the numbers behind them."""
