"""What the stand-in commands share: their state, their faults, and a client of the API server behind them.

A stand-in command takes the place of a real one on PATH in tests. It says and does what the real one was seen to do, so far as Meshgate
looks at it; what it says is in each command, with where it was read. The environment tells it:

  MESHGATE_STANDIN_STATE     a folder for what the commands remember, shared by all of them
  MESHGATE_STANDIN_MESHGATE  the binary whose embedded cluster stands for the nodes
  MESHGATE_STANDIN_FAULTS    what goes wrong, comma-separated, as COMMAND:FAULT (kind-create:late-ready,kind-load:fails-twice)
"""

import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import base64

STATE = pathlib.Path(os.environ["MESHGATE_STANDIN_STATE"])
FAULTS = set(filter(None, os.environ.get("MESHGATE_STANDIN_FAULTS", "").split(",")))


def fault(name):
    """Whether something is to go wrong."""
    return name in FAULTS


def say(text):
    """Chatter: the real commands write it to standard error."""
    print(text, file=sys.stderr, flush=True)


def fail(text, code=1):
    say(text)
    sys.exit(code)


def record(command):
    """Remembers the call, for tests that ask what was called."""
    STATE.mkdir(parents=True, exist_ok=True)
    environment = {name: os.environ.get(name) for name in ["KUBECONFIG", "KIND_EXPERIMENTAL_PROVIDER"]}
    with open(STATE / "calls.jsonl", "a") as calls:
        calls.write(json.dumps({"command": command, "arguments": sys.argv[1:], "environment": environment}) + "\n")


def count(name):
    """How often this was called before."""
    path = STATE / f"count-{name}"
    number = int(path.read_text()) if path.exists() else 0
    path.write_text(str(number + 1))
    return number


def hang():
    """Never ends, and neither does what it started, which holds the output open."""
    child = subprocess.Popen(["sleep", "600"])
    (STATE / "hung-child").write_text(str(child.pid))
    say("waiting for a daemon that does not answer")
    child.wait()
    sys.exit(1)


def options(arguments, values=(), flags=(), takes=0, error="ERROR"):
    """`--name value` and `--name=value` to a dictionary, flags without value to True, and the rest, of this many, in order.

    Only what the real command knows: a flag of another subcommand ends it, as it ends the real one.
    """
    found, rest = {}, []
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        name, _, value = argument.partition("=")
        if not argument.startswith("-"):
            rest.append(argument)
        elif name in flags and name == argument:
            found[name] = True
        elif name not in values:
            fail(f"{error}: unknown flag: {name}")
        elif name != argument:
            found[name] = value
        elif arguments:
            found[name] = arguments.pop(0)
        else:
            fail(f"{error}: flag needs an argument: {name}")
    if len(rest) != takes:
        fail(f"{error}: accepts {takes} arg(s), received {len(rest)}")
    return found, rest


def meshgate(*arguments):
    """The binary, with a state folder of its own, so that its clusters are no other's."""
    environment = dict(os.environ, XDG_STATE_HOME=str(STATE / "state"))
    return subprocess.run([os.environ["MESHGATE_STANDIN_MESHGATE"], *arguments], env=environment, capture_output=True, text=True)


def kubeconfig_of(name):
    return STATE / "state/meshgate" / name / "kubeconfig"


class Api:
    """The API server that a kubeconfig of the embedded cluster leads to."""

    def __init__(self, kubeconfig):
        text = pathlib.Path(kubeconfig).read_text()
        one = lambda key: re.search(rf"^\s*-?\s*{key}: (\S+)$", text, re.MULTILINE).group(1)
        self.server, self.token = one("server"), one("token")
        authority = base64.b64decode(one("certificate-authority-data")).decode()
        self.context = ssl.create_default_context(cadata=authority)

    def request(self, method, path, body=None):
        request = urllib.request.Request(self.server + path, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, context=self.context, timeout=10) as answer:
            return json.load(answer)

    def core_dns(self):
        """The Deployment that names are asked at in a real cluster. The embedded one answers them itself; what runs here only is there."""
        labels = {"k8s-app": "kube-dns"}
        container = {"name": "coredns", "image": "meshgate.dev/meshgate:dev", "args": ["app", "echo"], "env": [{"name": "NAME", "value": "coredns"}]}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "coredns", "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}},
            },
        }
        self.request("POST", "/apis/apps/v1/namespaces/kube-system/deployments", body)


def later(seconds, *command):
    """Runs a command of ours in a while, detached from whoever waits for this one."""
    code = f"import time, subprocess; time.sleep({seconds}); subprocess.run({list(map(str, command))!r})"
    null = subprocess.DEVNULL
    subprocess.Popen([sys.executable, "-c", code], stdin=null, stdout=null, stderr=null, start_new_session=True)
