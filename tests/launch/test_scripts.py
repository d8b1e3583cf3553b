"""What the filled scripts do: statuses, signals, lost slices. `aejax`, `gcloud` and the host's own
commands are stand-ins that write down how they were called."""

import os
import pathlib
import signal
import subprocess

import pytest

from aejax.engines import project
from tests.helpers import wait_for
from tests.launch.launch_helpers import files_of


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """fake(name, body): a command of that name; what it was called with is in tmp_path/NAME.log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, body):
        program = folder / name
        log = tmp_path / f"{name}.log"
        program.write_text(f'#!/bin/bash\necho "$*" >>"{log}"\ncd "{tmp_path}" || exit 9\n{body}\n')
        program.chmod(0o755)
        log.touch()
        return log

    return make


# Ends with the next of the statuses in a file, the last one for ever.
IN_TURN = """
read -r status rest <"statuses"
if [ -n "$rest" ]; then echo "$rest" >"statuses"; fi
exit "$status"
"""


# --- local ----------------------------------------------------------------------------------------


def run_local(tmp_path, *settings, wait=True):
    script = tmp_path / "run.sh"
    text = files_of("local", settings=["program=aejax", *settings])["run.sh"]
    script.write_text(text.replace("sleep 1\n", "sleep 0.01\n"))
    started = subprocess.Popen(
        ["bash", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return started.wait(240) if wait else started


@pytest.mark.parametrize(
    ("statuses", "end", "starts"),
    [
        ("0", 0, 1),
        ("2", 2, 1),  # the user's mistake is not tried again
        ("75 75 75 75 75 75 0", 0, 7),  # saved: as often as it takes
        ("1 134 0", 0, 3),  # a crash or two
        ("1", 1, 4),  # but not for ever
    ],
)
def test_local_starts_again_what_is_worth_it(tmp_path, fake, statuses, end, starts):
    (tmp_path / "statuses").write_text(statuses)
    log = fake("aejax", IN_TURN)
    assert run_local(tmp_path) == end
    assert log.read_text().count("study tiny_study.py:smoke") == starts


def test_local_passes_a_signal_on_and_waits_for_the_save(tmp_path, fake):
    log = fake(
        "aejax",
        "trap 'sleep 0.3; touch saved; exit 75' TERM\ntouch ready\nwhile true; do sleep 0.05; done",
    )
    started = run_local(tmp_path, wait=False)
    wait_for((tmp_path / "ready").exists)
    started.send_signal(signal.SIGTERM)
    assert started.wait(240) == 75  # and it is not started again: someone asked it to stop
    assert (tmp_path / "saved").exists() and log.read_text().count("study tiny_study") == 1


def test_local_joins_several_processes(tmp_path, fake):
    fake(
        "aejax",
        'echo "$AEJAX_COORDINATOR $AEJAX_NUM_PROCESSES $AEJAX_PROCESS_ID" >>joined\n'
        "exit $((AEJAX_PROCESS_ID == 1 ? 2 : 0))",
    )
    assert run_local(tmp_path, "processes=3") == 2  # the worst of them counts
    lines = sorted((tmp_path / "joined").read_text().splitlines())
    assert [line.split()[1:] for line in lines] == [["3", str(i)] for i in range(3)]
    assert len({line.split()[0] for line in lines}) == 1


# --- TPU VMs --------------------------------------------------------------------------------------

# A zone in a folder: queued/ID holds the state, storage/ the bucket.
GCLOUD = r"""
case "$*" in
  *"queued-resources create"*) echo WAITING_FOR_RESOURCES >"queued" ;;
  *"queued-resources delete"*) rm "queued" ;;
  *"queued-resources describe"*)
    [ -f queued ] || exit 1
    cat queued
    # what happens next in this zone
    if [ -f story ]; then
      read -r next <story
      sed -i 1d story
      [ -s story ] || rm story
      case $next in
        done:*) mkdir -p storage; echo "${next#done:}" >storage/status.0 ;;
        *) echo "$next" >queued ;;
      esac
    fi ;;
  *"storage rm"*) rm -f "storage/$(basename "$3")" ;;
  *"storage cp - "*) mkdir -p storage; cat >"storage/$(basename "$4")" ;;
  *"storage cp ../"*) mkdir -p storage; cp "${3#../}" storage/ ;;
  *"storage cat"*) cat "storage/$(basename "$3")" 2>/dev/null || exit 1 ;;
esac
"""


def babysit(tmp_path):
    settings = ["project=p", "zone=z", "bucket=b", "source=s", "poll=0"]
    (tmp_path / "project.tar.gz").write_bytes(b"packed")
    (tmp_path / "0").mkdir(exist_ok=True)
    script = tmp_path / "0" / "babysit.sh"
    script.write_text(files_of("tpu_vm", settings=settings)["0/babysit.sh"])
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout


def calls(log, what):
    return [line for line in log.read_text().splitlines() if what in line]


def test_babysitter_replaces_a_lost_slice_and_gives_the_last_one_back(tmp_path, fake):
    log = fake("gcloud", GCLOUD)
    (tmp_path / "story").write_text("ACTIVE\nACTIVE\nSUSPENDED\nACTIVE\nFAILED\nACTIVE\ndone:0\n")
    status, said = babysit(tmp_path)
    assert status == 0 and "ended with status 0" in said
    assert len(calls(log, "queued-resources create")) == 3
    assert len(calls(log, "queued-resources delete")) == 3 and not (tmp_path / "queued").exists()
    assert "lost 2 times" in said and (tmp_path / "storage" / "project.tar.gz").is_file()
    for word in ("--accelerator-type=v5litepod-16", "--spot", "startup-script=startup.sh"):
        assert word in calls(log, "create")[0]


def test_babysitter_gives_the_slice_back_after_a_mistake_too(tmp_path, fake):
    log = fake("gcloud", GCLOUD)
    (tmp_path / "story").write_text("ACTIVE\ndone:2\n")
    assert babysit(tmp_path)[0] == 2
    assert len(calls(log, "delete")) == 1 and not (tmp_path / "queued").exists()


def test_babysitter_started_again_sees_what_ended_meanwhile(tmp_path, fake):
    log = fake("gcloud", GCLOUD)
    (tmp_path / "queued").write_text("ACTIVE\n")
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "status.0").write_text("0\n")
    assert babysit(tmp_path)[0] == 0
    assert not calls(log, "create") and len(calls(log, "delete")) == 1


def test_a_new_launch_ignores_the_status_of_an_earlier_one(tmp_path, fake):
    log = fake("gcloud", GCLOUD)
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "status.0").write_text("2\n")
    (tmp_path / "story").write_text("ACTIVE\ndone:0\n")
    assert babysit(tmp_path)[0] == 0 and len(calls(log, "create")) == 1


def start_host(tmp_path, fake, worker=0, mounted=True):
    """Runs startup.sh with the machine's folders moved into tmp_path."""
    log = fake("aejax", 'echo "$OLDPWD" >where' + IN_TURN)
    for name in ("apt-get", "gcsfuse", "python3"):
        fake(name, "")
    fake("mountpoint", "exit 0")
    fake("curl", f'[[ "$*" == *agent-worker-number* ]] && echo {worker}')
    fake("gcloud", GCLOUD)
    text = files_of("tpu_vm", settings=["project=p", "zone=z", "bucket=b", "source=s"])
    text = text["0/startup.sh"]
    for folder in ("/opt/aejax/bin", "/runs", "/var/log", "/opt/uv/bin", "/opt/project"):
        moved = tmp_path / "host" / folder[1:]
        moved.mkdir(parents=True)
        text = text.replace(folder, str(moved))
    if mounted:
        launched = tmp_path / "host/runs/tiny-study/launch"
        launched.mkdir(parents=True)
        project.pack(pathlib.Path.cwd(), launched / "project.tar.gz")
    (tmp_path / "host/opt/aejax/bin/aejax").symlink_to(tmp_path / "bin/aejax")
    script = tmp_path / "startup.sh"
    text = text.replace("export HOME=/root", f"export HOME={tmp_path}").replace("sleep 5 #", ": #")
    script.write_text(text)
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=240)
    return done, log


@pytest.mark.parametrize(
    ("statuses", "end", "starts"),
    [("75 134 75 0", 0, 4), ("2", 2, 1), ("1", 1, 4)],
)
def test_a_host_runs_the_study_until_it_is_done(tmp_path, fake, statuses, end, starts):
    (tmp_path / "statuses").write_text(statuses)
    done, log = start_host(tmp_path, fake)
    assert done.returncode == end, done.stderr
    assert len(calls(log, "study tiny_study.py:smoke --run 0/1")) == starts
    assert (tmp_path / "host/opt/project/my_package/parts.py").is_file()  # own parts are there
    assert (tmp_path / "where").read_text().strip() == str(tmp_path / "host/opt/project")
    assert (tmp_path / "storage" / "status.0").read_text() == f"{end}\n"


def test_only_the_first_host_reports(tmp_path, fake):
    (tmp_path / "statuses").write_text("0")
    done, _ = start_host(tmp_path, fake, worker=3)
    assert done.returncode == 0 and not (tmp_path / "storage").exists()


def test_a_host_without_its_bucket_says_so(tmp_path, fake):
    (tmp_path / "statuses").write_text("0")
    done, log = start_host(tmp_path, fake, mounted=False)
    assert done.returncode == 2 and not calls(log, "study")
    assert (tmp_path / "storage" / "status.0").read_text() == "2\n"
    assert "not mounted" in (tmp_path / "storage" / "log.0").read_text()
