"""The machine that a process runs on.

    cpu.py         name, cores and instruction sets of the CPU
    speed.py       speed of products in float32 and bfloat16, measured once
    allocator.py   settings of malloc that make JAX fast on a CPU
    cache.py       cache folders, and the cache of compiled programs
    provenance.py  command, versions, machine, date and revision of a result

Imports no JAX, except provenance.py.
"""
