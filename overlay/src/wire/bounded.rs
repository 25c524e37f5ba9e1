//! Lists that a peer cannot make grow: whatever it sends, a decoded list takes no more memory than its limit allows.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// At most `LIMIT` elements; one more if there were more, so that [`decode`](super::decode) sees the excess and can
/// name it. All further ones are parsed and let go. (An error raised here instead would reach it as postcard's one
/// wordless error for everything.)
struct Bounded<T, const LIMIT: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for Bounded<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor::<T, LIMIT>(PhantomData)).map(Bounded)
    }
}

struct BoundedVisitor<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for BoundedVisitor<T, LIMIT> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {LIMIT} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        // postcard's hint is `None` if the declared length exceeds the bytes that are left.
        let mut list = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(LIMIT + 1));
        while let Some(element) = elements.next_element()? {
            if list.len() <= LIMIT {
                list.push(element);
            }
        }
        Ok(list)
    }
}

/// For `#[serde(deserialize_with)]` on a `Vec<T>`.
pub(crate) fn list<'de, const LIMIT: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Bounded::<T, LIMIT>::deserialize(deserializer).map(|bounded| bounded.0)
}

/// For `#[serde(deserialize_with)]` on an `Option<Vec<T>>`.
pub(super) fn optional<'de, const LIMIT: usize, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let bounded = Option::<Bounded<T, LIMIT>>::deserialize(deserializer)?;
    Ok(bounded.map(|bounded| bounded.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_no_more_memory_than_its_limit_whatever_is_sent() {
        let decode =
            |bytes: &[u8]| postcard::take_from_bytes::<Bounded<u64, 4>>(bytes).map(|(list, _)| list.0);
        for (sent, kept) in [(0, 0), (4, 4), (5, 5), (6, 5), (100_000, 5)] {
            let list = decode(&postcard::to_stdvec(&vec![7u64; sent]).unwrap()).unwrap();
            assert_eq!(list, vec![7; kept]);
            assert!(list.capacity() <= 8, "{sent} elements took room for {}", list.capacity());
        }
        let huge_but_empty = postcard::to_stdvec(&u64::MAX).unwrap();
        assert!(decode(&huge_but_empty).is_err());
    }
}
