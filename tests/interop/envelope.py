"""Opens and seals certseal envelopes from docs/envelope.md alone, with other people's cryptography.

    envelope.py open GOLDEN.json     prints the TLS key in the golden file as hex
    envelope.py seal GOLDEN.json     seals that key anew, to the same unseal key, and prints envelope and issuer as JSON
"""

import hashlib
import json
import os
import struct
import sys
from base64 import b64decode

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

HEADERS = {1: 111, 2: 127}
KEMS = {1: (KEMId.DHKEM_P256_HKDF_SHA256, 65), 2: (KEMId.DHKEM_X25519_HKDF_SHA256, 32)}


def sha256(data):
    return hashlib.sha256(data).digest()


def names_digest(names):
    encoded = b"".join(bytes([len(name)]) + name.encode() for name in sorted(names))
    return sha256(b"certseal names v1\0" + encoded)


class UnsealKey:
    def __init__(self, pem):
        body = b64decode("".join(pem.split("-----")[2].split()))
        self.suite, self.epoch, length = struct.unpack_from(">HIB", body)
        self.pool, scalar = body[7 : 7 + length], body[7 + length :]
        if self.suite == 1:
            private = ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
            form = serialization.PublicFormat.UncompressedPoint
            self.public = private.public_key().public_bytes(serialization.Encoding.X962, form)
        else:
            private = x25519.X25519PrivateKey.from_private_bytes(scalar)
            self.public = private.public_key().public_bytes_raw()
        self.private = KEMKey.from_pyca_cryptography_key(private)
        self.public_key = KEMKey.from_pyca_cryptography_key(private.public_key())
        self.key_id = sha256(struct.pack(">H", self.suite) + self.public)[:16]

    def hpke(self):
        return CipherSuite.new(KEMS[self.suite][0], KDFId.HKDF_SHA256, AEADId.AES256_GCM)

    def info(self, header):
        scope = sha256(header)
        if header[4] == 2:
            scope = sha256(b"certseal group v1\0" + struct.pack(">H", self.suite) + header[111:127])
        place = bytes([len(self.pool)]) + self.pool + struct.pack(">I", self.epoch) + self.key_id
        return b"certseal stanza v1" + sha256(scope + place)


def payload_keys(content_key, header):
    hkdf = HKDF(hashes.SHA256(), 64, salt=sha256(header), info=b"certseal payload v1")
    both = hkdf.derive(content_key)
    return both[:32], both[32:]


def signed(header, commitment, payload):
    return b"certseal envelope v1\0" + header + commitment + sha256(payload)


def open_envelope(golden):
    envelope, key = bytes.fromhex(golden["envelope"]), UnsealKey(golden["unseal_key"])
    issuer = bytes.fromhex(golden["issuer"])
    magic, version, suite = struct.unpack_from(">4sBH", envelope)
    assert magic == b"CSEV" and version in HEADERS and suite == golden["suite"]
    h = HEADERS[version]
    header, commitment = envelope[:h], envelope[h : h + 32]
    assert header[23:55] == names_digest(golden["names"])
    assert header[55:87] == sha256(bytes.fromhex(golden["spki"]))
    assert struct.unpack_from(">Q", header, 87)[0] == golden["key_version"]
    assert header[95:111] == sha256(issuer)[:16]
    (length,) = struct.unpack_from(">H", envelope, h + 32)
    payload = envelope[h + 34 : h + 34 + length]
    signature = envelope[h + 34 + length : h + 98 + length]
    Ed25519PublicKey.from_public_bytes(issuer).verify(signature, signed(header, commitment, payload))

    at, enc_length = h + 99 + length, KEMS[suite][1]
    for _ in range(envelope[h + 98 + length]):
        pool = envelope[at + 1 : at + 1 + envelope[at]]
        at += 1 + len(pool)
        epoch, key_id = struct.unpack_from(">I16s", envelope, at)
        enc = envelope[at + 20 : at + 20 + enc_length]
        sealed = envelope[at + 20 + enc_length : at + 68 + enc_length]
        at += 68 + enc_length
        if (pool, epoch, key_id) == (key.pool, key.epoch, key.key_id):
            context = key.hpke().create_recipient_context(enc, key.private, info=key.info(header))
            content_key = context.open(sealed)
    assert at == len(envelope)
    payload_key, expected = payload_keys(content_key, header)
    assert expected == commitment
    plain = AESGCM(payload_key).decrypt(bytes(12), payload, b"")
    assert plain[0] == golden["tls_key_kind"]
    return plain[1:]


def seal_envelope(golden):
    key, issuer = UnsealKey(golden["unseal_key"]), Ed25519PrivateKey.generate()
    issuer_public = issuer.public_key().public_bytes_raw()
    version = bytes.fromhex(golden["envelope"])[4]
    header = b"CSEV" + struct.pack(">BH", version, key.suite) + os.urandom(16) + names_digest(golden["names"])
    header += sha256(bytes.fromhex(golden["spki"])) + struct.pack(">Q", golden["key_version"]) + sha256(issuer_public)[:16]
    if version == 2:
        header += os.urandom(16)
    content_key = os.urandom(32)
    payload_key, commitment = payload_keys(content_key, header)
    plain = bytes([golden["tls_key_kind"]]) + bytes.fromhex(golden["tls_key"])
    payload = AESGCM(payload_key).encrypt(bytes(12), plain, b"")
    enc, context = key.hpke().create_sender_context(key.public_key, info=key.info(header))
    stanza = bytes([len(key.pool)]) + key.pool + struct.pack(">I", key.epoch) + key.key_id + enc + context.seal(content_key)
    envelope = header + commitment + struct.pack(">H", len(payload)) + payload
    envelope += issuer.sign(signed(header, commitment, payload)) + b"\x01" + stanza
    return {"envelope": envelope.hex(), "issuer": issuer_public.hex()}


def main():
    command, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        golden = json.load(file)
    if command == "open":
        print(open_envelope(golden).hex())
    elif command == "seal":
        print(json.dumps(seal_envelope(golden)))


main()
