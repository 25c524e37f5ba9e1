//! A topic's log as one node holds it: entries at consecutive offsets, the terms that they belong to, and the sessions
//! of the publishers whose messages they are. Knows neither tree nor ring.

pub(crate) mod terms;
pub(crate) mod window;
pub(crate) mod early;
pub(crate) mod sessions;
pub(crate) mod seen;
