"""Many processes as one program.

    detect.py     finds the cluster by its environment: SLURM, TPU slices, OpenMPI, or variables
    missing.py    a roll call before JAX connects the processes, which names the missing hosts
    processes.py  joins the cluster; index, count and barrier of the processes
    slow.py       heartbeats during the run, which show the host that is slow, silent or lost
    abort.py      exit status 75 where JAX would abort because another process is lost

Every process of a run (one per host of a TPU slice, one per task of `srun`) starts the same
command and calls `processes.initialise()` first. A single process skips all of this.
"""
