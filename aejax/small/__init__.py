"""Model compression: structured pruning, low rank, distillation.

    channels.py  structured pruning: removes units and channels
    rank.py      low-rank factorisation of matrices by SVD
    distil.py    an objective with the outputs and codes of a larger model as targets
    measure.py   size, multiply-accumulates and speed of a model
    cli.py       aejax shrink

Elsewhere: unstructured pruning in training (training/prune.py), quantisation (nets/quantise.py),
and files of 16, 8 or 4 bits (`weights.stored_as`).
"""
