//! How often physical links were crossed.

/// Crossings of physical links, both directions of a link together, nodes' own access links included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkLoads {
    /// Crossings together.
    pub total: u64,
    /// Crossings of the most used link.
    pub max: u64,
    /// Links that were crossed at all.
    pub used: u64,
    crossings: Vec<u32>,
}

impl LinkLoads {
    /// One crossing more for each of these links.
    pub fn add(&mut self, links: &[u32]) {
        links.iter().for_each(|&link| self.cross(link));
    }

    /// One crossing more.
    pub(super) fn cross(&mut self, link: u32) {
        let link = link as usize;
        if link >= self.crossings.len() {
            self.crossings.resize(link + 1, 0);
        }
        let crossings = &mut self.crossings[link];
        *crossings = crossings.saturating_add(1);
        self.total += 1;
        self.used += u64::from(*crossings == 1);
        self.max = self.max.max(u64::from(*crossings));
    }

    /// Crossings of each link, by its number; links beyond the end were never crossed.
    pub fn crossings(&self) -> &[u32] {
        &self.crossings
    }
}
