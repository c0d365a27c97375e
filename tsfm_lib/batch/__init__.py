"""Batch work over the notebooks: run them in processes of their own, compare, render, write back. `run_all.sh` is its door."""
