//! A topic's log, replicated. Knows neither tree nor ring.

pub mod configurations;
pub mod entry;
pub mod lineage;
pub mod part;
pub mod primary;
pub mod term;
pub mod window;
