"""rollouts.sh: a command's directory and those of two gateways, with a real rclone and a real S3
endpoint between them."""

import os
import signal
import threading
from pathlib import Path

import pytest
import requests

from service.gateway.rollouts import Rollouts
from service.gateway.witness import Witness
from service.rollout.evidence import Evidence, evidence_directory, write_evidence
from sluice.wire.rollout_files import parse_rollout
from sluice.wire.rollouts import Stage
from tests.delivery.kubernetes.toy_bucket import SCRIPTS, Place, version
from tests.gateway.rollouts import eventually
from tests.processes import RUNNING, GatewayProcess
from tests.system.conftest import ToyServer

pytestmark = pytest.mark.clients

VENV = Path(__file__).parents[3] / ".venv/bin"
KILL = "kill -KILL 0"  # whatever was started with it


@pytest.fixture
def place(tools, bucket, tmp_path):
    """`place(name)` -> a Place; in the bucket are versions 1 and 2 of `digits`."""
    folder, store = bucket
    version(folder, 1), version(folder, 2)
    environment = store | {
        "PATH": f"{tools}:{VENV}:/usr/bin:/bin",
        "MODELS_CONFIG": str(tmp_path / "models.config"),
        "ROLLOUT_S": "0.2",
    }
    places = []

    def make(name, **more):
        places.append(Place(tmp_path / name, environment | more))
        return places[-1]

    yield make
    for each in places:
        each.end()


def test_gateways_follow_what_a_command_elsewhere_does(place, bucket):
    command, gateways = place("command"), [place("one"), place("other")]
    followed = [Rollouts(Witness(each.directory)) for each in gateways]

    def said(rollouts):
        rollouts.look()
        assert not rollouts.problem
        return rollouts.in_force.get("digits")

    def follow():
        for gateway in gateways:
            gateway.fetch()
        one, other = map(said, followed)
        assert one == other
        return one

    assert follow() is None
    assert "version 1 is held" in command.sluice("hold", "digits", 1)
    assert follow().answering == 1
    command.sluice("start", "digits", 2)
    assert follow().stage is Stage.SHADOW
    command.sluice("canary", "digits", 0.25, "--why", "looks good")
    assert follow().canary == 0.25
    command.sluice("abort", "digits")
    assert follow().stage is Stage.ROLLED_BACK
    elsewhere = place("elsewhere")  # a pod of its own, which knows nothing but the bucket
    elsewhere.sluice("end", "digits")
    assert follow() is None
    assert not (bucket[0] / "digits/rollout.json").exists()


def test_what_both_gateways_have_seen_adds_up(place):
    command, one, other = place("command"), place("one"), place("other")
    command.sluice("start", "digits", 2)
    for gateway, pairs in ((one, 2), (other, 3)):
        gateway.fetch()
        write_evidence(gateway.evidence / f"{pairs}.json", Evidence(gateway.rollout.id, pairs))
        gateway.fetch()
    assert "Of 5 requests" in command.sluice("status", "digits")
    write_evidence(one.evidence / "2.json", Evidence(one.rollout.id, 20))
    one.fetch()
    assert "Of 23 requests" in command.sluice("status", "digits")
    assert "Of 23 requests" in place("elsewhere").sluice("status", "digits")


def test_what_was_seen_of_a_rollout_that_is_over_does_not_come_back(place, bucket):
    command, gateway = place("command"), place("gateway")
    ids = []
    for _ in range(3):
        command.sluice("start", "digits", 2)
        gateway.fetch()
        ids.append(gateway.rollout.id)
        write_evidence(gateway.evidence / "a.json", Evidence(ids[-1], 2))
        gateway.fetch()
        command.sluice("abort", "digits")
    # A worker had not heard yet that it is over.
    write_evidence(evidence_directory(gateway.model, ids[0]) / "a.json", Evidence(ids[0], 3))
    gateway.fetch()
    there = sorted(each.name for each in (bucket[0] / ".rollout/digits").iterdir())
    assert there == sorted(ids[1:])  # `sluice rollout` keeps the one before, too


def test_a_gateway_that_goes_has_sent_what_it_saw_last(place):
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2)
    follower = gateway.start("follow", ROLLOUT_S="1000")
    eventually(lambda: (gateway.directory / ".store/agreed/digits/rollout.json").exists())
    write_evidence(gateway.evidence / "a.json", Evidence(gateway.rollout.id, 2))
    follower.terminate()
    assert follower.wait(60) == 0
    assert "Of 2 requests" in command.sluice("status", "digits")


def test_a_guard_that_is_killed_goes_on_elsewhere_where_it_stood(place):
    command, gateway = place("command"), place("gateway")
    guard = command.start("rollout", "digits", 2)
    eventually(lambda: (command.model / "rollout.json").exists() and command.rollout)
    eventually(lambda: gateway.fetch() or gateway.rollout)
    write_evidence(gateway.evidence / "a.json", Evidence(gateway.rollout.id, 7, timed=7))
    gateway.fetch()
    elsewhere = place("elsewhere")

    def watched():
        elsewhere.sluice("status", "digits")
        watch = elsewhere.evidence / ".watch.json"
        return watch.exists() and '"pairs": 7' in watch.read_text()

    eventually(watched)
    os.killpg(guard.pid, signal.SIGKILL)
    guard.communicate()
    guard = elsewhere.start("rollout", "digits", 2)
    assert "7 of 500 requests" in guard.stdout.readline()
    command.sluice("abort", "digits")  # where the one that was killed had been
    told, _ = guard.communicate(timeout=60)
    assert guard.returncode == 1 and "rolled back: version 1 answers" in told


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("words", [["canary", "digits", 0.5], ["end", "digits"]])
def test_a_command_that_is_killed_while_it_takes_up_has_changed_all_or_nothing(place, words, when):
    command, gateway = place("command"), place("gateway")
    command.sluice(*(["start", "digits", 2] if words[0] == "canary" else ["hold", "digits"]))
    gateway.fetch()
    before = gateway.rollout
    deed = KILL if when == "before" else f'"$real" "$@"; {KILL}'
    killing = f'case $1 in copyto | deletefile) {deed} ;; *) exec "$real" "$@" ;; esac'
    killed = command.start("rollout", *words, rclone=killing)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    gateway.fetch()
    assert (gateway.rollout == before) is (when == "before")
    elsewhere = place("elsewhere")
    assert elsewhere.run("rollout", "status", "digits").returncode == 0
    command.run("rollout", "status", "digits")  # what is left to be done is
    gateway.fetch()
    assert gateway.rollout == command.rollout != before


def test_a_gateways_fetch_that_is_killed_is_made_good_by_the_next(place):
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2)
    killed = gateway.start("fetch", rclone=f'"$real" "$@"; {KILL}')
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL and not gateway.model.exists()
    gateway.fetch()
    assert gateway.rollout == command.rollout


def test_nobody_ever_reads_half_a_file(place):
    """A long one, which takes several writes, read as fast as can be while it is replaced."""
    command, gateway = place("command"), place("gateway")
    why = ["--why", "x" * 60_000]
    command.sluice("start", "digits", 2)
    for share in range(1, 6):
        command.sluice("canary", "digits", share / 10, *why)
    gateway.start("follow", ROLLOUT_S="0.01")
    over, seen, faults = threading.Event(), set(), []

    def read():
        while not over.is_set():
            try:
                seen.add(parse_rollout((gateway.model / "rollout.json").read_text()).canary)
            except FileNotFoundError:
                pass
            except ValueError as error:
                faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for share in (0.6, 0.7, 0.8):
        command.sluice("canary", "digits", share, *why)
        eventually(lambda share=share: share in seen)
    over.set()
    reader.join()
    assert not faults


def test_of_two_who_change_it_at_once_the_later_gives_way_and_says_so(place):
    one, other, gateway = place("one"), place("other"), place("gateway")
    one.sluice("start", "digits", 2)
    # The other does not look at the bucket between what it does and what the one does.
    meanwhile = f"""
        exec 8>>$MODELS/.store/lock
        flock 8
        "$real" "$@"
        export PATH=${{PATH#*:}} MODELS={one.directory}
        sh {SCRIPTS}/rollouts.sh rollout canary digits 0.5 8>&-"""
    late = other.run("rollout", "canary", "digits", 0.1, sluice=meanwhile)
    assert late.returncode == 1 and "has moved meanwhile" in late.stderr
    gateway.fetch()
    assert one.rollout.canary == other.rollout.canary == gateway.rollout.canary == 0.5


def test_what_came_up_unheard_is_no_move_of_somebody_else(place, tmp_path):
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2)
    move = "sluice rollout canary digits 0.7 --model-repository $MODELS"
    unheard = f"""
        "$real" "$@" || exit
        if [ $1 = copyto ] && [ ! -e {tmp_path}/moved ]; then
            touch {tmp_path}/moved
            {move}
            exit 1
        fi"""
    done = command.run("rollout", "canary", "digits", 0.5, rclone=unheard)
    assert done.returncode == 0, done.stderr
    gateway.fetch()
    assert gateway.rollout.canary == command.rollout.canary == 0.7


def test_while_the_bucket_is_away_gateways_keep_what_they_have_and_commands_fail(place):
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2)
    gateway.fetch()
    before = gateway.rollout
    for away in (
        {"MODEL_STORE": "store:nowhere/models"},
        {"RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": "wrong"},
        {"RCLONE_CONFIG_STORE_ENDPOINT": "http://127.0.0.1:9"},
    ):
        assert gateway.run("fetch", **away).returncode == 1
        done = command.run("rollout", "abort", "digits", **away)
        assert done.returncode == 75 and "could not be read" in done.stderr
        assert gateway.rollout == command.rollout == before
    # An empty place is rather a mistake than the end of all rollouts.
    assert gateway.run("fetch", MODEL_STORE="store:bucket/elsewhere").returncode == 0
    assert gateway.rollout == before


def test_a_command_waits_until_what_it_did_is_in_the_bucket(place, tmp_path):
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2)
    flag = tmp_path / "back"
    full = f'[ "$1" != copyto ] || [ -e {flag} ] || exit 1\nexec "$real" "$@"'
    process = command.start("rollout", "abort", "digits", rclone=full)
    for line in process.stdout:
        if "it is tried again" in line:
            break
    gateway.fetch()
    assert gateway.rollout.stage is Stage.SHADOW and process.poll() is None
    flag.touch()
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "is in the bucket" in told
    gateway.fetch()
    assert gateway.rollout.stage is Stage.ROLLED_BACK


def test_a_list_of_models_is_all_that_is_asked_for(place, bucket, tmp_path):
    version(bucket[0], 1, model="flowers")
    command, gateway = place("command"), place("gateway")
    eventually(lambda: "held" in command.run("rollout", "hold", "flowers").stdout)
    command.sluice("hold", "digits")
    (tmp_path / "models.config").write_text(
        'model_config_list { config { name: "digits" } config { name: "absent" } }'
    )
    gateway.fetch()
    assert gateway.rollout.answering == 2
    assert not (gateway.directory / "flowers/rollout.json").exists()


def test_fetches_of_models_pass_rollouts_over(place, bucket, tmp_path):
    folder, _ = bucket
    version(folder, 3), version(folder, 4)
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2, "--live", 1)
    gateway.fetch()
    write_evidence(gateway.evidence / "a.json", Evidence(gateway.rollout.id, 2))
    gateway.fetch()
    (tmp_path / "models.config").write_text(
        """model_config_list { config { name: "digits"
           model_version_policy { specific { versions: 1 versions: 2 } } } }"""
    )
    server = place("server", KEEP_VERSIONS="1")
    for _ in range(2):  # the second time for what is to go
        done = server.run("fetch", script="store.sh")
        assert done.returncode == 0, done.stderr
        assert sorted(each.name for each in server.model.iterdir()) == ["1", "2", "4"]
        assert [each.name for each in server.directory.iterdir()] == ["digits"]
    assert (server.model / "1/saved_model.pb").read_text() == "graph"


def test_a_version_that_is_named_before_it_is_there_is_seen_once_it_is(place, bucket):
    folder, _ = bucket
    command, gateway = place("command"), place("gateway")
    command.sluice("start", "digits", 2)
    text = (folder / "digits/rollout.json").read_text()
    (folder / "digits/rollout.json").write_text(text.replace('"next": 2', '"next": 3'))
    gateway.start("follow", ROLLOUT_S="0.01")
    eventually(lambda: (gateway.model / "rollout.json").exists())
    with pytest.raises(ValueError, match="no version 3"):
        eventually(lambda: gateway.rollout.next == 3)
    version(folder, 3)
    eventually(lambda: (gateway.model / "3").is_dir() and gateway.rollout.next == 3)


def test_names_of_versions_are_published_by_nobody(place, bucket):
    folder, _ = bucket
    command = place("command")
    command.sluice("hold", "digits")
    assert (command.model / "2/saved_model.pb").exists()
    (folder / "digits/2/saved_model.pb").unlink()
    elsewhere = place("elsewhere")
    eventually(
        lambda: elsewhere.sluice("status", "digits") and not (elsewhere.model / "2").exists()
    )
    done = command.run("publish", script="store.sh")
    assert done.returncode == 0 and not done.stdout
    assert not (folder / "digits/2/saved_model.pb").exists()
    assert not (folder / "digits/rollout.json").is_dir()


def test_two_gateways_that_serve_are_led_from_elsewhere(place):
    """Their own processes, before a model server that has every version."""
    command, places = place("command"), [place("one"), place("other")]
    command.sluice("hold", "digits", 1)
    followers = [each.start("follow") for each in places]
    server = ToyServer("--call-s=0")
    server.wait_for(RUNNING.pattern)
    eventually(lambda: all((each.model / "rollout.json").exists() for each in places))
    gateways = [
        GatewayProcess(server.address, models="digits", admin_port=0, model_repository=directory)
        for directory in (each.directory for each in places)
    ]

    def answering():
        """By whom each gateway's next request is answered."""
        replies = [
            requests.post(
                f"{each.url}/v1/models/digits:predict", json={"instances": [1.0]}, timeout=60
            )
            for each in gateways
        ]
        return [each.headers.get("X-Sluice-Version") for each in replies]

    for gateway in gateways:
        gateway.wait_for(gateway.up)
    eventually(lambda: answering() == ["1", "1"])
    command.sluice("start", "digits", 2)
    command.sluice("canary", "digits", 1)
    eventually(lambda: answering() == ["2", "2"])
    for count in (5, 10):  # whichever asks, what has been seen is the sum of both
        asked = sum(answering() == ["2", "2"] for _ in range(5))
        assert asked == 5
        eventually(lambda count=count: canaries(command.sluice("status", "digits")) >= 2 * count)
    command.sluice("abort", "digits")
    eventually(lambda: answering() == ["1", "1"])
    for each in (*gateways, server):
        each.terminate()
    for each in followers:
        each.terminate()
        assert each.wait(60) == 0


def canaries(status):
    """How many requests the next version has answered."""
    (line,) = [each for each in status.splitlines() if each.startswith("next, as a canary")]
    return int(line.split()[4].replace(",", ""))
