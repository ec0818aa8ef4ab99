"""What containerd's configuration says: CRI's image for the sandbox (pause) of a pod, and who shares content. Pure.

Containerd tells it nowhere else. Only the value leaves the host: a configuration may have passwords.
"""

from __future__ import annotations

from ctr_ferry import shell
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.programs import PLAIN
from ctr_ferry.shell import Answer

_CONTENT_STORE = "/io.containerd.content.v1.content"
_PLAINS_FILE = "/etc/containerd/config.toml"
# k3s and RKE2 write a file beside containerd's root, k0s and MicroK8s at a fixed place.
_BESIDE_ROOT = "etc/containerd/config.toml"
_FILES = {
    "/run/k0s/": ("/run/k0s/containerd-cri.toml", "/etc/k0s/containerd.toml"),
    "/var/snap/microk8s/": ("/var/snap/microk8s/current/args/containerd.toml",),
}
# `sandbox_image = "…"` up to 1.7, `sandbox = '…'` among the pinned images from 2.0 on
_SANDBOX = r"sandbox\(_image\)\{0,1\}"
_SHARING = r"content_sharing_policy\(\)"
_NAMED = (
    """named() { sed -n "s/^[[:space:]]*KEY[[:space:]]*=[[:space:]]*"""
    """[\\"']\\([^\\"']*\\)[\\"'].*/\\2/p" | head -n 1 | head -c 1024; }"""
)


def question(ctr: Ctr, content_root: str) -> str:
    """Builds sh text that prints the name of the sandbox image, as the configuration has it; or nothing."""
    return _value(_SANDBOX, ctr, content_root)


def sharing(ctr: Ctr, content_root: str) -> str:
    """Builds sh text that prints whether namespaces share content: ``isolated`` if not, ``shared``, or nothing."""
    return _value(_SHARING, ctr, content_root)


def is_isolated(answer: Answer) -> bool:
    """Whether the answer to `sharing` says that no namespace sees the content of another."""
    return answer.text.strip() == "isolated"


def _value(key: str, ctr: Ctr, content_root: str) -> str:
    """Prints a value of the configuration.

    A containerd of its own prints its whole configuration, with what other files add and with its defaults
    (`config dump` from 1.3 on, `config default` before).
    """
    files = [f"{content_root.removesuffix(_CONTENT_STORE).rpartition('/')[0]}/{_BESIDE_ROOT}"]
    files += [file for start, known in _FILES.items() if ctr.address.startswith(start) for file in known]
    tries = [f"cat {shell.join(files)}"]
    if ctr.address == PLAIN.socket:
        folder = ctr.argv[0].rpartition("/")[0]
        program = shell.join([f"{folder}/containerd" if folder else "containerd"])
        tries += [f"{program} config dump", f"cat {_PLAINS_FILE}", f"{program} config default"]
    lines = [f'[ -n "$image" ] || image=$({each} 2>/dev/null | named)' for each in tries]
    return "\n".join([_NAMED.replace("KEY", key), "image=", *lines, "printf '%s\\n' \"$image\""])
