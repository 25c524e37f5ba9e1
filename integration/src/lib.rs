//! The laboratory: a world of real [`Machine`](treecast_overlay::machine::Machine)s in virtual time, and what judges it.

pub mod world;
pub mod member;
pub mod watch;
pub mod witness;
pub mod check;
pub mod rings;
pub mod history;
pub mod tapped;
pub mod grove;
pub mod model;
pub mod lab;
pub mod report;
