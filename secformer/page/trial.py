"""The page beside all roles on this machine, for `secformer up --page` and for tests."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secformer.page.files import Page
from secformer.page.model import page_model
from secformer.page.serving import PageServer
from secformer.roles.settings import load_client
from secformer.roles.tokens import pair
from secformer.roles.trial import LocalRoles

SECONDS, REQUESTS = 600, 10_000  # that a token holds


def trial_page(roles: LocalRoles, port: int) -> PageServer:
    """Serves the page of these roles, whose parties must let its origins ask. Raises ModelError for a model that the
    page cannot serve, and SettingsError if the port is taken."""
    settings, page = load_client(roles.settings("client")), Page((roles.url(0), roles.url(1)))
    return PageServer(port, page.files(page_model(settings.model)), page.headers,
                      lambda: pair(settings, SECONDS, REQUESTS).as_dict())


def browser_options(roles: LocalRoles) -> list[str]:
    """Options of Chromium that make it accept the keys of these two parties, and no other that is not trusted. It takes
    them with a profile of its own only."""
    keys = ",".join(_key_hash(roles.role_folder(f"party{rank}") / f"party{rank}.pem") for rank in (0, 1))
    return [f"--ignore-certificate-errors-spki-list={keys}"]


def _key_hash(path: Path) -> str:
    """SHA-256 of a certificate's public key, in base64."""
    key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    written = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(hashlib.sha256(written).digest()).decode()
