"""Runs a study as jobs of SLURM, GKE, TPU VMs or SkyPilot, or as processes of this machine.

    engine.py      the engines, and which templates of launch/ each of them fills
    settings.py    settings.toml of an engine, the user's launch.toml, --set name=value
    templates.py   finds and fills the templates
    plan.py        the filled files and the commands that submit them
    project.py     the current folder, packed for machines that do not see it
    cli.py         `aejax launch`

The engine schedules, retries and queues jobs. Job ("unit") i of N is `aejax study FILE --run i/N
--directory DIR`: always the same runs in the same folders, resumed from their checkpoints. Exit
status 0 means done, 75 saved and to be started again, 2 a user error.
"""
