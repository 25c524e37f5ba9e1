//! Large pages for large worlds. A hundred thousand nodes are some gigabytes that are walked at random: with pages of
//! 4 KiB nearly every step misses the processor's table of pages (measured at 10,000 nodes: a fifth of the time).

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where glibc's allocator looks for its settings, once, before `main`.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Asks the kernel for huge pages wherever it can give some.
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// Starts this very command again with huge pages, unless somebody has set the allocator's settings already. Returns
/// where that is not possible: everything works without, too.
pub fn start_with_huge_pages() {
    let is_set = env::var_os(VARIABLE).is_some();
    if is_set || !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // Returns only if it failed.
        let _ = Command::new(program).args(env::args_os().skip(1)).env(VARIABLE, HUGE_PAGES).exec();
    }
}
