"""Engines: a study as jobs of SLURM, GKE, TPU VMs, SkyPilot, or processes of this machine.

    engine.py      the engines, and which files of launch/ each fills
    settings.py    settings.toml of an engine, the user's launch.toml, --set name=value
    templates.py   where the templates are, and how they are filled
    plan.py        the filled files and the commands that submit them
    project.py     the current folder, packed for machines that do not see it
    cli.py         `aejax launch`

The engine schedules, retries and queues. Unit i of N is `aejax study FILE --run i/N --directory
DIR`: the same runs in the same folders every time, resumed from their checkpoints. Exit status 0
means done, 75 saved and to be started again, 2 a mistake of the user's.
"""
