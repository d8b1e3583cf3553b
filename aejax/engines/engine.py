"""The engines."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Engine:
    """A folder of templates in `launch/`, and how they are used.

    Attributes:
      help: one line.
      once: files filled once.
      each: files filled for every unit: YAML is joined into one file, scripts get its number.
      submit: the command, run in the folder of the filled files; with {unit} once for every unit.
      units: units of work if the user does not say; 0 = one per run.
      required: settings without a default.
      remote: the machines do not see this machine's folders; the runs go to /runs.
      needs: the programs of this machine that `submit` runs.
      packs: the project is packed beside the filled files, as project.tar.gz.
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
