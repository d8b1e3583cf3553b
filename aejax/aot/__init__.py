"""The train step compiled ahead of time for TPU slices and GPUs that are not here, and read.

topology  names of slices and cards, what their makers say of a chip, devices to compile for
compile   the program that `aejax train` would run, from shapes alone
analyse   what is in a compiled program: collectives, padding, products, loops
report    `aejax check --topology`: all of it in a table, an estimate of the step beside it
"""
