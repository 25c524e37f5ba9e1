//! The two sides of a node on the ring. Slots and leases are given for a side: in a small ring, or in one of which a node
//! does not see all, one neighbour may stand on the left of some node, on its right, or on both.

use serde::{Deserialize, Serialize};

/// One side of a node on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Towards smaller ids.
    Left,
    /// Towards greater ids.
    Right,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Left, Side::Right];

    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Side {
        if self == Side::Left { Side::Right } else { Side::Left }
    }
}

/// None, one or both sides of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sides {
    /// Neither.
    #[default]
    None,
    /// Towards smaller ids.
    Left,
    /// Towards greater ids.
    Right,
    /// All around.
    Both,
}

impl Sides {
    /// Whether it is neither.
    pub fn is_none(self) -> bool {
        self == Sides::None
    }

    /// Whether this side is among them.
    pub fn has(self, side: Side) -> bool {
        match self {
            Sides::None => false,
            Sides::Left => side == Side::Left,
            Sides::Right => side == Side::Right,
            Sides::Both => true,
        }
    }

    /// Left for right, and right for left: where one stands at a node that stands there at oneself.
    #[must_use]
    pub fn opposite(self) -> Sides {
        match self {
            Sides::Left => Sides::Right,
            Sides::Right => Sides::Left,
            Sides::None | Sides::Both => self,
        }
    }

    /// The sides that are among both.
    #[must_use]
    pub fn and(self, other: Sides) -> Sides {
        self.iter().filter(|&side| other.has(side)).collect()
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Side> {
        Side::BOTH.into_iter().filter(move |&side| self.has(side))
    }
}

impl FromIterator<Side> for Sides {
    fn from_iter<I: IntoIterator<Item = Side>>(sides: I) -> Sides {
        sides.into_iter().fold(Sides::None, |all, side| match (all, side) {
            (Sides::None | Sides::Left, Side::Left) => Sides::Left,
            (Sides::None | Sides::Right, Side::Right) => Sides::Right,
            _ => Sides::Both,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_collected_and_told_apart() {
        for sides in [Sides::None, Sides::Left, Sides::Right, Sides::Both] {
            assert_eq!(sides.iter().collect::<Sides>(), sides);
        }
        assert_eq!([Side::Right, Side::Left, Side::Right].into_iter().collect::<Sides>(), Sides::Both);
    }
}
