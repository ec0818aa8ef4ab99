"""A host certificate makes a host known if an authority has signed it, for this host, for now; and only then."""

from __future__ import annotations

import base64
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

from ctr_ferry.ssh.certificates import certificate_fault

KEYS: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}
AFTER, NOW, BEFORE = 1000, 2000, 3000


def blob(line: bytes) -> bytes:
    """The second word of a public key's or a certificate's line, decoded."""
    return base64.b64decode(line.split()[1])


def public(name: str) -> paramiko.PKey:
    data = blob(KEYS[name].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return paramiko.PKey.from_type_string(paramiko.Message(data).get_text(), data)


def certificate(host: str = "ed25519", signer: str = "p256", **other: Any) -> bytes:
    """A certificate of a host's key; ``other`` has what is other than in a good one."""
    builder = (
        SSHCertificateBuilder()
        .public_key(KEYS[host].public_key())
        .type(other.get("type", SSHCertificateType.HOST))
        .key_id(b"\xff id")
        .valid_after(other.get("after", AFTER))
        .valid_before(other.get("before", BEFORE))
    )
    principals = other.get("principals", [b"node3.example"])
    builder = builder.valid_principals(principals) if principals else builder.valid_for_all_principals()
    if "critical" in other:
        builder = builder.add_critical_option(other["critical"], b"x")
    return blob(builder.sign(KEYS[signer]).public_bytes())


@pytest.mark.parametrize("host", KEYS)
@pytest.mark.parametrize("signer", KEYS)
def test_a_certificate_of_each_type_is_taken(host: str, signer: str) -> None:
    assert certificate_fault(certificate(host, signer), "node3.example", [public(signer)], NOW) == ""


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"principals": []}, ""),
        ({"principals": [b"x", b"*.example"]}, ""),
        ({"principals": [b"x", b"node4.example"]}, "is for x, node4.example"),
        ({"principals": [b"node3.example.com"]}, "is for "),
        ({"principals": [b"node[1-9].example"]}, "is for "),
        ({"type": SSHCertificateType.USER}, "is not one of a host"),
        ({"critical": b"force-command"}, "has options"),
        ({"after": NOW + 1}, "is not valid now"),
        ({"before": NOW}, "is not valid now"),
        ({"signer": "ed25519"}, "no @cert-authority"),
    ],
)
def test_a_certificate_is_taken_for_its_host_and_its_time_alone(other: dict[str, Any], fault: str) -> None:
    found = certificate_fault(certificate(**other), "node3.example", [public("p256")], NOW)
    assert fault in found and bool(fault) == bool(found)


def test_a_certificate_that_was_changed_is_not_taken() -> None:
    changed = certificate().replace(b"node3.example", b"node4.example")
    assert "wrong or weak" in certificate_fault(changed, "node4.example", [public("p256")], NOW)


def test_without_an_authority_no_certificate_is_taken() -> None:
    assert "no @cert-authority" in certificate_fault(certificate(), "node3.example", [], NOW)
