//! A bar on the terminal, so that whoever waits for ten minutes sees that and how it moves. On anything else: nothing.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far an experiment is.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on stderr if that is a terminal.
    pub fn on_terminal() -> Progress {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>18} {wide_bar} {human_pos}/{human_len} {msg}")
        {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// Nobody watches.
    pub fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden() }
    }

    /// A new part of the work begins: its name, and how many things it has to do.
    pub fn phase(&self, name: &str, length: u64) {
        self.bar.set_prefix(name.to_string());
        self.bar.set_length(length);
        self.bar.set_position(0);
        self.bar.set_message("");
    }

    /// So many of them are done; a word beside the bar.
    pub fn at(&self, done: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(done);
    }

    /// Nothing more comes: the bar goes away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
