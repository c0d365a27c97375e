"""Generated series: Gaussian processes, families of realistic shapes, mixtures of them, and sets with a planted truth.

Imports neither data nor models. Randomness is an argument everywhere: same generator state or seed, same bytes.
"""
