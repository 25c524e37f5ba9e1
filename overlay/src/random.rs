//! The one seeded generator of a node, and child streams by label. The crate `rand` stands beside `rand_chacha` for ranges and
//! shuffles over this generator; no other generator is compiled in.

use rand::SeedableRng;
pub use rand_chacha::ChaCha8Rng as Rng;

/// A child stream: the same seed and label always give the same numbers, other labels give others.
pub fn stream(seed: &[u8; 32], label: &str) -> Rng {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(label.as_bytes());
    Rng::from_seed(*hasher.finalize().as_bytes())
}
