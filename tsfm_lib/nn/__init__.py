"""The vocabulary: what the models share and nothing else. Every model file imports its parts from here by module.

attention    one scaled-dot-product attention for all models, with masks, biases, rotary positions and a tap on the pattern
positions    rotary (with and without decay), sinusoidal and relative (T5) positions
sites        what interpretation tools need to know about a model: its heads and its MLPs
feedforward  plain and gated feed-forward, residual MLP
graph        edges between variates by their spectra, attention along the edges
moe          top-k gates, execution of experts, load balance, utilisation
patching     padding in front, patches and back
mixed_patches  patches whose sizes a router chooses (Kairos)
resampling   gaps bridged, series stretched to a length, random crops of them
tokens       what multi-scale fine-tuning needs to know about a sequence of tokens
scaling      instance normalisation that survives missing values and constants
outputs      quantile, mixture and token outputs
objectives   random cuts, masks and contrasts for training
t5           T5's layer and its two stacks
initialise   T5's variances of fresh weights
modes        evaluation mode for a while
lora         low-rank changes of named Linears, handed over as arguments

Letters in shapes: B batch, V variates, T time, N patches (queries), M memory (keys), D width, H heads, K head width, Q quantiles,
E experts.
"""
