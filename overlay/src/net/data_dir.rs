//! The data directory: a node keeps its identity, its incarnation and some peers between its lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::store;
use crate::identity::Identity;
use crate::peer::Seed;

/// Peers remembered at most; the most recent ones stay.
pub const MAX_REMEMBERED: usize = 64;
/// Identities in one directory: so many processes may share it.
pub const MAX_IDENTITIES: usize = 64;

/// One identity of a data directory, locked while this lives; or one that is nowhere but in memory.
///
/// A data directory has subdirectories `node`, `node-2`, `node-3`, … with the files `identity` (the secret, 64
/// hexadecimal digits, readable by its owner only), `incarnation` (the last one used) and `peers` (a ticket a line).
#[derive(Debug)]
pub struct DataDir {
    identity: Identity,
    /// `None`: ephemeral.
    home: Option<Home>,
}

#[derive(Debug)]
struct Home {
    path: PathBuf,
    /// Released by the system, however the process ends.
    _lock: File,
}

/// A fault of a data directory.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refuses.
    #[error("cannot {doing} {}: {source}: check its permissions, or name another directory by --data-dir", .path.display())]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("{} is damaged ({problem}): restore it, or remove it and the node gets a new one", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The fault.
        problem: &'static str,
    },
    /// All identities are in use.
    #[error("all {MAX_IDENTITIES} identities in {} are in use: name another directory by --data-dir", .0.display())]
    Full(PathBuf),
    /// Nothing says where the directory is to be.
    #[error("no data directory: set TREECAST_DATA or HOME, or use --data-dir or --ephemeral")]
    NoHome,
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { doing, path: path.to_owned(), source }
}

impl DataDir {
    /// Takes the first identity of a directory that no other process uses; makes one if there is none.
    pub fn open(directory: impl AsRef<Path>) -> Result<DataDir, DataDirError> {
        let directory = directory.as_ref();
        for number in 1..=MAX_IDENTITIES {
            let name = if number == 1 { "node".to_owned() } else { format!("node-{number}") };
            if let Some(home) = Home::lock(&directory.join(name))? {
                return Ok(DataDir { identity: home.identity()?, home: Some(home) });
            }
        }
        Err(DataDirError::Full(directory.to_owned()))
    }

    /// A new identity that is kept nowhere.
    pub fn ephemeral() -> Result<DataDir, DataDirError> {
        Ok(DataDir { identity: random_identity()?, home: None })
    }

    /// Where data is kept unless told otherwise: `$TREECAST_DATA`, else `$XDG_DATA_HOME/treecast`, else
    /// `~/.local/share/treecast`.
    pub fn default_path() -> Result<PathBuf, DataDirError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        variable("TREECAST_DATA")
            .or_else(|| variable("XDG_DATA_HOME").map(|data| data.join("treecast")))
            .or_else(|| variable("HOME").map(|home| home.join(".local/share/treecast")))
            .ok_or(DataDirError::NoHome)
    }

    /// The identity of this node.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The identity's own directory; `None` if it is ephemeral.
    pub fn path(&self) -> Option<&Path> {
        self.home.as_ref().map(|home| home.path.as_path())
    }

    /// The incarnation of a new life: max(stored + 1, unix milliseconds). It is on disk before it is given.
    pub fn next_incarnation(&self) -> Result<u64, DataDirError> {
        let now = unix_millis();
        let Some(home) = &self.home else { return Ok(now) };
        let path = home.path.join("incarnation");
        let stored = match read(&path)? {
            None => 0,
            Some(text) => text.trim().parse::<u64>().map_err(|_| DataDirError::Damaged {
                path: path.clone(),
                problem: "it is no decimal number",
            })?,
        };
        let next = stored.saturating_add(1).max(now);
        store::replace(&path, format!("{next}\n").as_bytes()).map_err(failed("write", &path))?;
        Ok(next)
    }

    /// Keeps these peers for the next life in place of earlier ones, the first [`MAX_REMEMBERED`] of them; the most
    /// recent are to come first. Nothing is kept of none: it takes a peer to find back.
    pub fn remember(&self, peers: &[Seed]) -> Result<(), DataDirError> {
        let Some(home) = self.home.as_ref().filter(|_| !peers.is_empty()) else { return Ok(()) };
        let path = home.path.join("peers");
        let mut lines: Vec<Seed> = Vec::new();
        for seed in peers.iter().copied().chain(self.remembered()?) {
            let known =
                lines.iter().any(|line| line.addr == seed.addr || (line.id == seed.id && seed.id.is_some()));
            if !known && lines.len() < MAX_REMEMBERED {
                lines.push(seed);
            }
        }
        let text: String = lines.iter().map(|seed| format!("{seed}\n")).collect();
        store::replace(&path, text.as_bytes()).map_err(failed("write", &path))
    }

    /// The peers of earlier lives, most recent first. Lines that are no tickets are skipped.
    pub fn remembered(&self) -> Result<Vec<Seed>, DataDirError> {
        let Some(home) = &self.home else { return Ok(Vec::new()) };
        let text = read(&home.path.join("peers"))?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).take(MAX_REMEMBERED).collect())
    }
}

impl Home {
    /// `None`: another process uses it.
    fn lock(path: &Path) -> Result<Option<Home>, DataDirError> {
        fs::create_dir_all(path).map_err(failed("make directory", path))?;
        let file = path.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&file).map_err(failed("open", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Home { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("lock", &file)(error)),
        }
    }

    fn identity(&self) -> Result<Identity, DataDirError> {
        let path = self.path.join("identity");
        match read(&path)? {
            Some(text) => match secret(text.trim()) {
                Some(secret) => Ok(Identity::from_secret(&secret)),
                None => Err(DataDirError::Damaged { path, problem: "it is not 64 hexadecimal digits" }),
            },
            None => {
                let identity = random_identity()?;
                write_secret(&path, &identity.secret()).map_err(failed("write", &path))?;
                Ok(identity)
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn secret(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(secret)
}

/// The file is never there without its mode, nor half written: it is made beside, and then given its name.
fn write_secret(path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn random_identity() -> Result<Identity, DataDirError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(DataDirError::Random)?;
    Ok(Identity::from_secret(&secret))
}

#[expect(
    clippy::disallowed_methods,
    reason = "incarnations are counted in wall-clock time, outside of any core"
)]
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::peer::Addr;

    #[test]
    fn identities_stay_and_are_locked_while_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::open(directory.path()).unwrap();
        let second = DataDir::open(directory.path()).unwrap();
        assert!(second.path().unwrap().ends_with("node-2"));
        assert_ne!(first.identity().id(), second.identity().id());
        let id = first.identity().id();
        drop(first);
        let again = DataDir::open(directory.path()).unwrap();
        assert_eq!(again.identity().id(), id);
    }

    #[cfg(unix)]
    #[test]
    fn the_secret_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let mode = fs::metadata(data.path().unwrap().join("identity")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn incarnations_grow_also_when_the_clock_was_set_back() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let first = data.next_incarnation().unwrap();
        assert!(data.next_incarnation().unwrap() > first);
        let future = u64::MAX / 2;
        fs::write(data.path().unwrap().join("incarnation"), format!("{future}\n")).unwrap();
        assert_eq!(data.next_incarnation().unwrap(), future + 1);
    }

    #[test]
    fn peers_are_remembered_the_most_recent_first() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let seed = |n: u32| Seed { addr: Addr::Memory(n), id: Some(NodeId(u128::from(n))) };
        data.remember(&[seed(1), seed(2)]).unwrap();
        data.remember(&[seed(2), seed(3)]).unwrap();
        assert_eq!(data.remembered().unwrap(), [seed(2), seed(3), seed(1)]);
        data.remember(&(10..100).map(seed).collect::<Vec<_>>()).unwrap();
        assert_eq!(data.remembered().unwrap().len(), MAX_REMEMBERED);
    }

    #[test]
    fn damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = DataDir::open(directory.path()).unwrap().path().unwrap().join("identity");
        fs::write(&path, "zz").unwrap();
        let error = DataDir::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("identity is damaged (it is not 64 hexadecimal digits)"), "{error}");
    }
}
