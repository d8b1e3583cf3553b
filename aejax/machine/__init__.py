"""The machine that a process runs on.

cpu.py         name, cores, instructions
speed.py       products in float32 and bfloat16, timed once
allocator.py   settings of malloc that make JAX fast on a CPU
cache.py       folders of what can be made again, and the cache of compiled programs
provenance.py  command, versions, machine, date, revision: what is kept beside a result
"""
