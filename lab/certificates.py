"""The lab's own certificate authority, and the certificates of the lab's registries."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority. Only those who get its file trust it.

    Args:
        file: the file for the authority's own certificate, as PEM.
        name: the authority's name in the certificates.
        days: for how many days its own certificate is valid.
    """

    def __init__(self, file: Path, name: str = "the lab's own CA", days: int = 10) -> None:
        self.file, self._key = file, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signs = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        made = (
            self._builder(self._name, self._key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(signs, critical=True)
        )
        file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, file: Path, names: Sequence[str], days: int = 10) -> Path:
        """Write a server's key and certificate into one PEM file.

        Args:
            file: the file to write. Only its owner may read it.
            names: the host names and IP addresses of the server.
            days: for how many days the certificate is valid; below 0, it has expired so many days ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(x509.Name([]), key.public_key(), days).add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=True
        )
        file.touch(0o600)
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        )
        return file

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        """Return a certificate without the extensions that make it a server's or an authority's."""
        now = datetime.datetime.now(datetime.UTC)
        start, end = now + min(days, 0) * DAY - DAY, now + days * DAY
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(self._name, name, key, x509.random_serial_number(), start, end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(known, critical=False)
        )


def _general(name: str) -> x509.GeneralName:
    """Return a name or an address as a certificate holds it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
