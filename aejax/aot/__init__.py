"""Compiles the train step ahead of time for TPU slices and GPUs that this machine does not have,
and analyses the compiled program.

topology    slices and cards by name, published figures of their chips, devices to compile for
compile     compiles the program that `aejax train` would run, from shapes only
analyse     what is in a compiled program: collectives, padding, products, loops
report      `aejax check --topology`: prints all of it, with an estimate of the time of a step
"""
