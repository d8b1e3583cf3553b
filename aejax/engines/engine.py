"""The table of engines: local, slurm, gke, tpu_vm, sky."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Engine:
    """How the templates in the folder of an engine in `launch/` are used.

    A unit is one job: part i of N of the study.

    Attributes:
      help: what the jobs are, for `aejax launch --help`.
      once: templates that are filled once.
      each: templates that are filled for every unit: YAML files are joined to one, any other goes
        to a folder named after the unit's number.
      submit: the command that submits, run in the folder of the filled files. If it has "{unit}",
        it is run once for every unit.
      units: the default number of units; 0 = one per run.
      required: settings that the user has to set.
      remote: whether the machines do not see this machine's folders; their runs are in /runs.
      needs: programs that `submit` needs on this machine.
      packs: whether the project is packed as project.tar.gz beside the filled files.
    """

    help: str
    once: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    submit: tuple[str, ...] = ()
    units: int = 0
    required: tuple[str, ...] = ()
    remote: bool = False
    needs: tuple[str, ...] = ()
    packs: bool = False


ENGINES = {
    "local": Engine(
        "processes of this machine", once=("run.sh",), submit=("bash", "run.sh"), units=1
    ),
    "slurm": Engine(
        "one array job",
        once=("study.sbatch",),
        submit=("sbatch", "study.sbatch"),
        needs=("sbatch",),
    ),
    "gke": Engine(
        "JobSets in a Kueue queue",
        once=("Dockerfile", "submit.sh"),
        each=("jobset.yaml",),
        submit=("bash", "submit.sh"),
        required=("image", "bucket"),
        remote=True,
        needs=("docker", "kubectl"),
        packs=True,
    ),
    "tpu_vm": Engine(
        "TPU slices by queued resources",
        each=("startup.sh", "babysit.sh"),
        submit=("bash", "{unit}/babysit.sh"),
        units=1,
        required=("project", "zone", "bucket", "source"),
        remote=True,
        needs=("gcloud",),
        packs=True,
    ),
    "sky": Engine(
        "SkyPilot managed jobs",
        once=("task.yaml", "submit.sh"),
        submit=("bash", "submit.sh"),
        required=("bucket",),
        remote=True,
        needs=("sky",),
    ),
}
