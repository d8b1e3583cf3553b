"""Run by a Python that has the validators, as `python validate.py kubernetes|sky FILE...`: prints
one line per file, "ok" or what is wrong. They are too heavy for the environment of the other tests.

JobSet and Kueue come with the cluster and not with Kubernetes: the fields that we use of them are
written down here from their API references (jobset.sigs.k8s.io, kueue.sigs.k8s.io), everything else
is refused. What is inside a JobSet is a Job and is checked by Kubernetes' own schema.
"""

import copy
import sys


def obj(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def array(of):
    return {"type": "array", "items": of, "minItems": 1}


TEXT, NUMBER, ANY = {"type": "string", "minLength": 1}, {"type": "integer"}, {}
# Names become parts of host names.
LABEL = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
META = obj(["name"], name=LABEL, namespace=LABEL, labels=TEXTS, annotations=TEXTS)

JOBSET = obj(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=META,
    spec=obj(
        ["replicatedJobs"],
        suspend={"type": "boolean"},
        ttlSecondsAfterFinished=NUMBER,
        failurePolicy=obj(
            maxRestarts={"type": "integer", "minimum": 0},
            restartStrategy={"enum": ["Recreate", "BlockingRecreate"]},
            rules=array(
                obj(
                    ["name", "action"],
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action={
                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
                    },
                    onJobFailureReasons=array(
                        {
                            "enum": [
                                "BackoffLimitExceeded",
                                "DeadlineExceeded",
                                "FailedIndexes",
                                "MaxFailedIndexesExceeded",
                                "PodFailurePolicy",
                            ]
                        }
                    ),
                    targetReplicatedJobs=array(TEXT),
                )
            ),
        ),
        replicatedJobs=array(
            obj(
                ["name", "template"],
                name=LABEL,
                replicas={"type": "integer", "minimum": 1},
                template=obj(["spec"], metadata=ANY, spec={"type": "object"}),
            )
        ),
    ),
)
HEAD = {"apiVersion": {"const": "kueue.x-k8s.io/v1beta1"}, "metadata": META}
KUEUE = {
    "ResourceFlavor": obj(
        ["apiVersion", "kind", "metadata"], kind=TEXT, **HEAD, spec=obj(nodeLabels=TEXTS)
    ),
    "LocalQueue": obj(
        ["apiVersion", "kind", "metadata", "spec"],
        kind=TEXT, **HEAD, spec=obj(["clusterQueue"], clusterQueue=TEXT),
    ),
    "ClusterQueue": obj(
        ["apiVersion", "kind", "metadata", "spec"],
        kind=TEXT, **HEAD,
        spec=obj(
            ["resourceGroups"],
            namespaceSelector=ANY,
            queueingStrategy={"enum": ["BestEffortFIFO", "StrictFIFO"]},
            resourceGroups=array(
                obj(
                    ["coveredResources", "flavors"],
                    coveredResources=array(TEXT),
                    flavors=array(
                        obj(
                            ["name", "resources"],
                            name=TEXT,
                            resources=array(obj(["name", "nominalQuota"], name=TEXT,
                                                nominalQuota=NUMBER)),
                        )
                    ),
                )
            ),
        ),
    ),
}  # fmt: skip


def kubernetes(path):
    import jsonschema
    import kubernetes_validate
    import yaml

    documents = list(yaml.safe_load_all(open(path)))
    assert documents, "no documents"
    for document in documents:
        schema = JOBSET if document["kind"] == "JobSet" else KUEUE[document["kind"]]
        jsonschema.Draft202012Validator(schema).validate(document)
        for job in document["spec"].get("replicatedJobs", ()) if schema is JOBSET else ():
            job = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": document["metadata"]["name"]},
                **copy.deepcopy(job["template"]),
            }
            version = kubernetes_validate.latest_version()
            kubernetes_validate.validate(job, version, strict=True)
            # What only the server knows: a pod failure policy needs pods that are not restarted,
            # and names a container.
            spec = job["spec"]["template"]["spec"]
            rules = job["spec"].get("podFailurePolicy", {"rules": []})["rules"]
            assert not rules or spec["restartPolicy"] == "Never", "restartPolicy must be Never"
            names = {c["name"] for c in spec["containers"]}
            for rule in rules:
                assert rule["onExitCodes"]["containerName"] in names, "no such container"


def sky(path):
    from sky import Task

    task = Task.from_yaml(path)
    for resources in task.resources:
        assert resources.job_recovery, "no job_recovery"


if __name__ == "__main__":
    check = {"kubernetes": kubernetes, "sky": sky}[sys.argv[1]]
    for file in sys.argv[2:]:
        try:
            check(file)
            print("ok")
        except Exception as e:
            print(" ".join(f"{type(e).__name__}: {e}".split())[:300])
