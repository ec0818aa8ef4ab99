"""Host certificates of OpenSSH (PROTOCOL.certkeys of OpenSSH)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import paramiko

_NUMBERS = {"ssh-rsa": 2, "ecdsa-sha2": 2, "ssh-ed25519": 1}  # fields of the public key, by the beginning of its type
_HOST = 2  # the type of a certificate; 1 is a user's
_WEAK = "ssh-rsa"  # a signature with SHA-1


def certificate_fault(certificate: bytes, name: str, authorities: Sequence[paramiko.PKey], now: float) -> str:
    """Why a certificate does not make a host known; empty if it does.

    Args:
        name: the host's name, without a port.
        authorities: the keys that may have signed it.
        now: seconds since 1970.
    """
    message = paramiko.Message(certificate)
    kind = message.get_text()
    message.get_binary()  # the nonce
    for _ in range(next(count for begin, count in _NUMBERS.items() if kind.startswith(begin))):
        message.get_binary()
    message.get_int64()  # the serial number
    what, _, principals = message.get_int(), message.get_binary(), _strings(message.get_binary())
    after, before, critical = message.get_int64(), message.get_int64(), message.get_binary()
    message.get_binary()  # extensions
    message.get_binary()  # reserved
    signer = message.get_binary()
    signed = message.get_so_far()
    signature = message.get_binary()
    authority = next((key for key in authorities if key.asbytes() == signer), None)
    if not authority:
        return "no @cert-authority of known_hosts has signed its certificate"
    weak = paramiko.Message(signature).get_text() == _WEAK
    if weak or not authority.verify_ssh_sig(signed, paramiko.Message(signature)):
        return "the signature of its certificate is wrong or weak"
    if what != _HOST or critical:
        return "its certificate is not one of a host, or has options that are not known here"
    if not after <= now < before:
        return "its certificate is not valid now"
    if principals and not any(fnmatchcase(name, each.replace("[", "[[]")) for each in principals):
        return f"its certificate is for {', '.join(principals)}"
    return ""


def _strings(packed: bytes) -> list[str]:
    message = paramiko.Message(packed)
    found: list[str] = []
    while message.get_remainder():
        found.append(message.get_binary().decode(errors="replace"))
    return found
