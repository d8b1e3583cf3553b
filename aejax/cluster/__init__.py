"""Many processes as one program.

    detect.py     what the environment says: SLURM, TPU slices, OpenMPI, or variables of the user's
    missing.py    a roll call before JAX connects the processes: it names the hosts that are missing
    processes.py  joins the cluster; index, count and barrier of the processes
    slow.py       while they run, names the host that is slow or silent

Every process of a run (one per host of a TPU slice, one per task of `srun`) starts the same
command and calls `processes.initialise()` first. On one process all of this costs nothing.
"""
