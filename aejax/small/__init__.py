"""Smaller models: fewer channels, fewer bits, fewer weights, a smaller pupil of a large teacher.

    channels.py  whole units and channels are removed: a smaller network
    rank.py      matrices of low rank, by SVD
    distil.py    an objective: y, and h, of a larger model as targets
    cli.py       aejax shrink

Single weights are pruned in training (training/prune.py), products quantised by model.quantise
(nets/quantise.py), files made small by `weights.stored_as`.
"""
