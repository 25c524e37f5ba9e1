//! A node's ed25519 key pair, and the id that follows from it.

use std::fmt;

use ed25519_dalek::SigningKey;

use crate::id::NodeId;

/// The secret that makes a node this node. Its `Debug` shows the id only.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity of a 32-byte secret.
    pub fn from_secret(secret: &[u8; 32]) -> Identity {
        Identity { key: SigningKey::from_bytes(secret) }
    }

    /// The secret, to be stored.
    pub fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public key, to be shown.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The id: first 128 bits of BLAKE3 of the public key.
    pub fn id(&self) -> NodeId {
        NodeId::of_public_key(&self.public_key())
    }

    /// The key pair itself, for the transport's certificates.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id())
    }
}
