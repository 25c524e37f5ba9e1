//! From the command line's flags to a node that is ready.

use std::time::Duration;

use treecast_scribe::overlay::config::Role;
use treecast_scribe::{Builder, Scribe};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::NodeOptions;
use crate::output::say;

/// An edge that finds no ring for so long becomes a ring node.
const PROMOTE_AFTER: Duration = Duration::from_secs(5);

/// A node that stays, or one that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On the ring: `node` and `chat`.
    Ring,
    /// Hangs on a ring that exists, and is the first of one only if there is none: `pub`, `sub`, `trace`.
    Edge,
}

/// Starts a node, or says why that came to nothing. What comes of it is told on stderr.
pub(crate) async fn connect(
    options: &NodeOptions,
    kind: Kind,
    interrupt: &Interrupt,
) -> Result<Scribe, Failure> {
    let start = builder(options, kind).start();
    tokio::select! {
        node = start => {
            let node = node.map_err(Failure::of)?;
            tracing::info!(id = %node.id(), addr = %node.addr(), "ready");
            Ok(node)
        }
        () = interrupt.wait() => {
            say("treecast: interrupted before the node was ready");
            Err(Failure::Said)
        }
    }
}

fn builder(options: &NodeOptions, kind: Kind) -> Builder {
    let mut builder = Scribe::builder().network(&options.network);
    for seed in &options.join {
        builder = builder.join(*seed);
    }
    if let Some(addr) = options.listen {
        builder = builder.listen(addr);
    }
    builder = match (&options.data_dir, options.ephemeral) {
        (_, true) => builder.ephemeral(),
        (Some(path), false) => builder.data_dir(path),
        (None, false) => builder.default_data_dir(),
    };
    match kind {
        Kind::Ring => builder,
        Kind::Edge => builder.role(Role::Edge { promote_after: Some(PROMOTE_AFTER) }),
    }
}
